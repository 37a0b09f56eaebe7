// Draws every chart that has an interactive form over its still one, in the colours of the page.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const theme = () => {
    const [ink, quiet, line] = ["--ink", "--quiet", "--line"].map(colour);
    return {
      font: "system-ui, sans-serif",
      axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: quiet, tickColor: quiet, labelFontSize: 12, titleFontSize: 13 },
      legend: { labelColor: ink, titleColor: ink, labelFontSize: 12 },
      text: { color: ink, fill: ink },
      title: { color: ink, subtitleColor: ink },
      view: { stroke: line },
    };
  };
  for (const figure of document.querySelectorAll(".interactive")) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    // That of the notebook's version, which is not the page's.
    delete spec.$schema;
    // As wide as the page. In the notebook it is a number: JupyterLab's output grows with what is in
    // it, and a chart as wide as that grows without end, until the tab dies.
    spec.width = "container";
    const live = figure.querySelector(".live");
    const draw = () => {
      // Shown before it is drawn: its width is that of the page.
      figure.classList.add("drawn");
      vegaEmbed(live, spec, { mode: "vega-lite", actions: false, renderer: "svg", config: theme() }).catch((error) => {
        figure.classList.remove("drawn");
        console.error(error);
      });
    };
    draw();
    dark.addEventListener("change", draw);
  }
})();
