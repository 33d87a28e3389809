"use strict";
/* Put the interactive figures where the pages ask for them. Recorded runs come with the page, in RECORDED.
   Then what CSS cannot know of a page: how far lines of code are indented, and where boxes hold more than they show. */
(() => {
  document.querySelectorAll(".md-search[role=dialog]").forEach(search => search.setAttribute("aria-label", "Search"));
  const find = id => document.getElementById(id);
  const playground = document.querySelector(".playground"); // by class: a heading may have any id
  if (playground) mountRelaxation(playground);
  if (find("dial")) mountDial(find("dial"), RECORDED.dial);
  const stepper = find("stepper");
  if (stepper) {
    const lines = RECORDED.trajectory.lines.map(({ line, ...rest }) =>
      ({ ...rest, href: `#${document.querySelector(`.listing a[id$="-${line}"]`).id}` }));
    mountTrace(stepper, RECORDED.trajectory, lines);
  }
  if (find("live")) mountLive(find("live"));
  const paint = () => document.querySelectorAll(".trace").forEach(
    trace => trace.classList.toggle("dark", document.body.dataset.mdColorScheme === "slate"));
  new MutationObserver(paint).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
  paint();

  for (const line of document.querySelectorAll(".beside pre > code > [id^=__span]")) {
    line.style.setProperty("--indent", line.textContent.match(/^ */)[0].length);
  }
  const mark = box => {
    const left = box.scrollLeft > 1, right = box.scrollWidth - box.clientWidth - box.scrollLeft > 1;
    if (left || right) box.dataset.more = left && right ? "both" : left ? "left" : "right";
    else delete box.dataset.more;
  };
  const sizes = new ResizeObserver(changed => changed.forEach(({ target }) => mark(target)));
  for (const box of document.querySelectorAll(".md-typeset :is(pre > code, table:not([class]), .scroll, div.arithmatex)")) {
    box.addEventListener("scroll", () => mark(box), { passive: true });
    sizes.observe(box);
  }
})();
