"use strict";
/* Put the interactive figures where the pages ask for them. Recorded runs come with the page, in RECORDED. */
(() => {
  const find = id => document.getElementById(id);
  if (find("relaxation")) mountRelaxation(find("relaxation"));
  if (find("dial")) mountDial(find("dial"), RECORDED.dial);
  const stepper = find("stepper");
  if (stepper) {
    mountTrace(stepper, RECORDED.trajectory, RECORDED.trajectory.lines);
    const paint = () => stepper.classList.toggle("dark", document.body.dataset.mdColorScheme === "slate");
    new MutationObserver(paint).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
    paint();
  }
})();
