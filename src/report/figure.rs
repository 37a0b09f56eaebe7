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

/// A drawing: SVG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure(String);

impl Figure {
    /// A figure out of a whole `<svg>` element.
    #[must_use]
    pub fn from_svg(svg: String) -> Self {
        Self(svg)
    }

    /// The `<svg>` element.
    #[must_use]
    pub fn svg(&self) -> &str {
        &self.0
    }

    /// Shows it as the cell's output.
    pub fn evcxr_display(&self) {
        emit("image/svg+xml", &self.0);
    }
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

/// The drawing with a style that follows the reader's light or dark theme and the page's width.
/// Text without an `<svg>` element comes back as it is.
#[must_use]
pub fn themed(svg: &str) -> String {
    const TAG: &str = "<svg";
    // What stands before the element (an XML declaration) stays before it. The first ">" behind
    // `<svg` ends the opening tag; its attributes are numbers and names, which hold no ">".
    let Some(open) = svg.find(TAG) else {
        return svg.to_owned();
    };
    let Some(length) = svg[open..].find('>') else {
        return svg.to_owned();
    };
    // The class goes into the opening tag, the style sheet right behind it.
    let (attributes, content) = svg[open + TAG.len()..].split_at(length + 1 - TAG.len());
    format!("{TAG} class=\"fk\"{attributes}{STYLE}{content}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_stands_inside_the_drawing() {
        let svg = themed("<?xml?><svg width=\"2\"><rect/></svg>");
        assert!(
            svg.starts_with("<svg class=\"fk\" width=\"2\"><style>"),
            "{svg}"
        );
        assert!(svg.ends_with("</style><rect/></svg>"), "{svg}");
        assert_eq!(themed("no drawing"), "no drawing");
        assert_eq!(themed("<svg"), "<svg");
    }
}
