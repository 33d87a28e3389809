"use strict";
/* Set the formulas. The site's generator has put each into an element of the class arithmatex, as \(...\) or \[...\]. */
document.querySelectorAll(".arithmatex").forEach(element => {
  const written = element.textContent.trim();
  const tex = written.slice(2, -2);
  katex.render(tex, element, { displayMode: written.startsWith("\\["), throwOnError: true, strict: "error", trust: false });
});
/* A formula wider than its column scrolls, by keyboard too. How wide it is depends on the column and on the fonts. */
(() => {
  const formulas = document.querySelectorAll("div.arithmatex");
  const reach = () => formulas.forEach(element => {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  });
  reach();
  document.fonts.ready.then(reach);
  document.fonts.addEventListener("loadingdone", reach);
  window.addEventListener("resize", reach);
})();
