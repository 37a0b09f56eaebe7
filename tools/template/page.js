// What a page can do beyond being read: code that is copied, figures that are looked at in full size.
(() => {
  const button = (name, says, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = name;
    made.textContent = says;
    made.addEventListener("click", () => act(made));
    return made;
  };
  // Where the clipboard is not given to a page that was opened from disk, the selection is copied.
  const select = (element) => {
    getSelection().selectAllChildren(element);
    return document.execCommand("copy") ? Promise.resolve() : Promise.reject();
  };
  const copied = (pre) => (navigator.clipboard ? navigator.clipboard.writeText(pre.textContent).catch(() => select(pre)) : select(pre));
  for (const pre of document.querySelectorAll(".code pre")) {
    const copy = button("copy", "Copia", (self) =>
      copied(pre).then(
        () => (self.textContent = "Copiat"),
        () => (self.textContent = "No s’ha pogut copiar"),
      ),
    );
    copy.addEventListener("blur", () => (copy.textContent = "Copia"));
    pre.parentElement.append(copy);
  }
  for (const figure of document.querySelectorAll("figure.wide")) {
    const enlarge = button("enlarge", "Amplia", (self) => {
      const large = figure.classList.toggle("large");
      self.textContent = large ? "Redueix" : "Amplia";
      self.setAttribute("aria-pressed", large);
      dispatchEvent(new Event("resize")); // what is drawn by script takes its new width
    });
    enlarge.setAttribute("aria-pressed", false);
    figure.after(enlarge);
  }
})();
