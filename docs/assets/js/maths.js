"use strict";
/* Set the formulas. The site's generator has put each into an element of the class arithmatex, as \(...\) or \[...\]. */
document.querySelectorAll(".arithmatex").forEach(element => {
  const written = element.textContent.trim();
  const tex = written.slice(2, -2);
  katex.render(tex, element, { displayMode: written.startsWith("\\["), throwOnError: true, strict: "error", trust: false });
});
