"use strict";
/* Put the interactive figures where the pages ask for them. Recorded runs come with the page, in RECORDED. */
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
})();
