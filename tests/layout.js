/* What a reader cannot see of a page as it is laid out: a list of sentences, empty if there is nothing. */
() => {
  const faults = [], SLACK = 1.5; // pixels: letters may hang over their boxes by that
  const styles = new Map();
  const style = e => styles.get(e) ?? styles.set(e, getComputedStyle(e)).get(e);
  const name = e => `${e.localName}${e.id ? `#${e.id}` : ""}${[...e.classList].map(c => `.${c}`).join("")}`;
  const scrolls = value => value === "auto" || value === "scroll";
  const report = (what, text, e) => faults.push(`${what}: "${text.trim().slice(0, 50)}" in ${name(e)}`);

  /* Where an element shows what is in it: its own box, and those of its ancestors that cut. Along a direction in
     which an ancestor scrolls, all that is in it can be reached. */
  const windows = new Map([[null, { left: -Infinity, right: innerWidth, top: -Infinity, bottom: Infinity }]]);
  const windowOf = e => {
    if (!windows.has(e)) {
      const around = windowOf(e.parentElement), { overflowX, overflowY, clip } = style(e);
      const box = e.getBoundingClientRect();
      const unseen = clip !== "auto" || Math.min(box.width, box.height) <= 1 && overflowX === "hidden";
      const one = (value, low, high, from, to) => scrolls(value) ? [-Infinity, Infinity]
        : value === "visible" ? [from, to] : [Math.max(low, from), Math.min(high, to)];
      const inline = style(e).display === "inline" || e === document.documentElement || e === document.body;
      const [left, right] = one(inline ? "visible" : overflowX, box.left, box.right, around.left, around.right);
      const [top, bottom] = one(inline ? "visible" : overflowY, box.top, box.bottom, around.top, around.bottom);
      windows.set(e, { left, right, top, bottom, unseen: unseen || around.unseen });
    }
    return windows.get(e);
  };
  const shown = e => e.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const buttons = [...document.querySelectorAll(".md-code__nav")].map(e => [e.closest("pre"), e.getBoundingClientRect()]);
  const buttonOf = new Map(buttons);

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange(), told = new Set();
  const visible = new Map();
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const e = text.parentElement;
    if (!text.data.trim() || told.has(e)) continue;
    if (!visible.has(e)) visible.set(e, shown(e));
    if (!visible.get(e)) continue;
    const { unseen, left, right, top, bottom } = windowOf(e);
    if (unseen) continue;
    range.selectNodeContents(text);
    const button = buttonOf.get(e.closest("pre"));
    for (const box of range.getClientRects()) {
      if (box.width === 0) continue;
      if (box.left < left - SLACK || box.right > right + SLACK || box.top < top - SLACK || box.bottom > bottom + SLACK) {
        report("cut", text.data, e);
        told.add(e);
        break;
      }
      const edge = button && e.closest("code")?.getBoundingClientRect().right; // what is scrolled out is not seen
      if (button && box.left < Math.min(edge, button.right) && Math.min(edge, box.right) > button.left
          && box.top < button.bottom && box.bottom > button.top) {
        report("below the copy button", text.data, e);
        told.add(e);
        break;
      }
    }
  }

  for (const e of document.body.querySelectorAll("*")) {
    if (e.scrollWidth > e.clientWidth + SLACK && e.clientWidth && scrolls(style(e).overflowX) && shown(e)) {
      if (style(e).boxShadow === "none") report("scrolls without a hint", e.textContent, e);
    }
  }
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) faults.push(`the page is ${root.scrollWidth - root.clientWidth} pixels too wide`);
  return faults;
}
