//! What a cell can show: figures (SVG) and prose (Markdown), and how they are handed to evcxr.
//!
//! evcxr, the notebooks' Rust kernel, calls `evcxr_display` on a cell's last value. What that
//! method prints between two marker lines becomes the cell's output.

/// `text` with the characters escaped that HTML and SVG reserve.
#[must_use]
pub fn escape(text: &str) -> String {
    // The ampersand first: those of the other replacements must not be escaped again.
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Prints `body` as a cell's output of the MIME type `mime`. The two markers are evcxr's protocol,
/// and have to stand on lines of their own.
pub(crate) fn emit(mime: &str, body: &str) {
    println!("EVCXR_BEGIN_CONTENT {mime}\n{body}\nEVCXR_END_CONTENT");
}

/// What a cell shows whose last value is `()`, that of a loop for instance: nothing.
///
/// evcxr would show the two brackets.
pub trait Silent {
    /// Shows nothing.
    fn evcxr_display(&self) {}
}

impl Silent for () {}

/// Prose that holds results of the run: Markdown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prose(String);

/// Prose out of Markdown text, usually a `format!` of what was just measured.
#[must_use]
pub fn prose(markdown: impl Into<String>) -> Prose {
    Prose(markdown.into())
}

impl Prose {
    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("text/markdown", &self.0);
    }
}

/// A drawing: SVG, with a text for those who do not see it.
///
/// # Examples
/// ```
/// use fashion_knn::report::figure::{Figure, side_by_side};
///
/// let square = Figure::new((90, 90), "<rect width=\"90\" height=\"90\"/>")
///     .described("A square", "90 × 90");
/// assert!(square.svg().contains("role=\"img\""));
/// let both = side_by_side([square.clone(), square]);
/// assert!(both.svg().contains("width=\"180\""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    size: (u32, u32),
    content: String,
    title: String,
    description: String,
}

impl Figure {
    /// A figure of so many pixels (width, height) out of SVG elements, which stand in `content`.
    #[must_use]
    pub fn new(size: (u32, u32), content: impl Into<String>) -> Self {
        Self {
            size,
            content: content.into(),
            title: String::new(),
            description: String::new(),
        }
    }

    /// Says in words what the figure shows: `title` is its name, `description` what is to be seen.
    #[must_use]
    pub fn described(mut self, title: impl Into<String>, description: impl Into<String>) -> Self {
        self.title = title.into();
        self.description = description.into();
        self
    }

    /// The `<svg>` element. It follows the reader's light or dark theme and the page's width.
    #[must_use]
    pub fn svg(&self) -> String {
        let (width, height) = self.size;
        // `<title>` and `<desc>` come first in their element: that makes them its name and its
        // description, which a screen reader reads.
        let mut words = String::new();
        for (tag, text) in [("title", &self.title), ("desc", &self.description)] {
            if !text.is_empty() {
                words += &format!("<{tag}>{}</{tag}>", escape(text));
            }
        }
        format!(
            "<svg class=\"fk\" role=\"img\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" xmlns=\"http://www.w3.org/2000/svg\">\
             {words}{STYLE}\n{}</svg>",
            self.content
        )
    }

    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("image/svg+xml", &self.svg());
    }
}

/// Figures in a row, from left to right.
#[must_use]
pub fn side_by_side(figures: impl IntoIterator<Item = Figure>) -> Figure {
    let (mut width, mut height) = (0, 0);
    let mut content = String::new();
    let (mut titles, mut descriptions) = (Vec::new(), Vec::new());
    for figure in figures {
        content += &format!(
            "<g transform=\"translate({width} 0)\">\n{}</g>\n",
            figure.content
        );
        width += figure.size.0;
        height = height.max(figure.size.1);
        descriptions.push(format!("{}: {}", figure.title, figure.description));
        titles.push(figure.title);
    }
    Figure::new((width, height), content).described(titles.join("; "), descriptions.join("\n"))
}

/// For a reader with a dark theme: paper becomes dark, ink and grid light, and the first colour of
/// the palette lighter. The colours are those that `chart.rs` and `gallery.rs` draw with.
///
/// The colours stand in attributes of the elements (`fill="#111111"`). A rule of a style sheet is
/// stronger than an attribute, so these rules need no change in the drawing itself.
const STYLE: &str = "<style>\
    .fk{max-width:100%;height:auto}\
    @media (prefers-color-scheme:dark){\
    .fk [fill=\"#FFFFFF\"]{fill:#1B1E23}\
    .fk [fill=\"#111111\"]{fill:#ECECEC}\
    .fk [stroke=\"#111111\"]{stroke:#ECECEC}\
    .fk [fill=\"#555555\"]{fill:#B4B4B4}\
    .fk [stroke=\"#555555\"]{stroke:#B4B4B4}\
    .fk [stroke=\"#DDDDDD\"]{stroke:#3A3F47}\
    .fk [fill=\"#DDDDDD\"]{fill:#3A3F47}\
    .fk [fill=\"#0072B2\"]{fill:#4FA8DC}\
    .fk [stroke=\"#0072B2\"]{stroke:#4FA8DC}\
    }</style>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_named_before_it_is_drawn() {
        let figure = Figure::new((2, 3), "<rect/>").described("a < b", "c & d");
        let svg = figure.svg();
        assert!(
            svg.starts_with("<svg class=\"fk\" role=\"img\" width=\"2\" height=\"3\""),
            "{svg}"
        );
        assert!(svg.contains("viewBox=\"0 0 2 3\""), "{svg}");
        assert!(
            svg.contains("><title>a &lt; b</title><desc>c &amp; d</desc><style>"),
            "{svg}"
        );
        assert!(svg.ends_with("</style>\n<rect/></svg>"), "{svg}");
        assert!(!Figure::new((2, 3), "").svg().contains("<title>"));
    }

    #[test]
    fn figures_side_by_side_keep_their_size_and_words() {
        let figure = |name: &str, size| Figure::new(size, "<rect/>").described(name, "one");
        let both = side_by_side([figure("a", (10, 20)), figure("b", (30, 5))]);
        let svg = both.svg();
        assert!(svg.contains("viewBox=\"0 0 40 20\""), "{svg}");
        assert!(
            svg.contains("<g transform=\"translate(10 0)\">\n<rect/></g>"),
            "{svg}"
        );
        assert!(
            svg.contains("<title>a; b</title><desc>a: one\nb: one</desc>"),
            "{svg}"
        );
        // One style sheet and one element: nested ones would be stretched by it.
        assert_eq!(
            (svg.matches("<style>").count(), svg.matches("<svg").count()),
            (1, 1)
        );
    }
}
