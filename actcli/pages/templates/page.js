"use strict";
// The page says all without this script; it adds the matrix that can be zoomed and sorted, and tables that sort.
for (const table of document.querySelectorAll("[data-sortable]")) {
  const rows = [...table.children];
  for (const button of document.querySelectorAll(`[data-sorts="${table.id}"]`)) {
    button.addEventListener("click", () => {
      const name = button.dataset.by, down = button.dataset.down === "1" ? -1 : 1;
      const value = row => name === "name" ? row.dataset.name : Number(row.dataset[name]);
      rows.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * down);
      table.append(...rows);
    });
  }
}

for (const box of document.querySelectorAll(".matrix")) {
  const { names, cells, orders } = JSON.parse(box.querySelector("script").textContent);
  const size = names.length, counts = new Float64Array(size), clips = new Map();
  for (const [label, guess, count] of cells) {
    counts[label] += count;
    clips.set(label * size + guess, count);
  }
  const canvas = document.createElement("canvas"), told = box.querySelector(".told");
  const pen = canvas.getContext("2d"), select = box.querySelector("select");
  box.querySelector("svg").replaceWith(canvas);
  box.querySelector(".controls").hidden = false;
  let order = orders[0].labels, place = [], view = { x: 0, y: 0, span: size }, chosen = null;

  const resort = () => { place = []; order.forEach((label, at) => { place[label] = at; }); draw(); };
  const clamp = () => {
    view.span = Math.min(size, Math.max(Math.min(4, size), view.span));
    view.x = Math.min(size - view.span, Math.max(0, view.x));
    view.y = Math.min(size - view.span, Math.max(0, view.y));
    canvas.style.touchAction = view.span < size ? "none" : "pan-y"; // a finger moves the page until the matrix is zoomed
  };
  const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const fit = (text, room) => {
    if (pen.measureText(text).width <= room) return text;
    const short = kept => text.slice(0, Math.ceil(kept / 2)) + "…" + text.slice(text.length - Math.floor(kept / 2));
    let kept = text.length - 1; // classes often differ in their last words only, so the middle goes
    while (kept > 1 && pen.measureText(short(kept)).width > room) kept -= 1;
    return short(kept);
  };

  let frame = { left: 0, top: 0, cell: 1 };
  function draw() {
    const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${width}px`;
    canvas.width = canvas.height = Math.round(width * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, width);
    pen.font = "11px system-ui, sans-serif";
    const shown = view.span <= 45, margin = shown ? Math.min(150, width * 0.27) : 6;
    const cell = (width - margin - 2) / view.span;
    frame = { left: margin, top: margin, cell };
    const blue = style("--cell"), ink = style("--ink"), soft = style("--soft");
    pen.save();
    pen.beginPath(); pen.rect(margin, margin, width, width); pen.clip();
    pen.fillStyle = `rgba(${blue}, 0.05)`; pen.fillRect(margin, margin, width, width);
    pen.textAlign = "center"; pen.textBaseline = "middle";
    for (const [label, guess, count] of cells) {
      const x = margin + (place[guess] - view.x) * cell, y = margin + (place[label] - view.y) * cell;
      if (x + cell < margin || y + cell < margin || x > width || y > width) continue;
      const share = count / counts[label], gap = cell > 6 ? 1 : 0;
      pen.fillStyle = `rgba(${blue}, ${0.12 + 0.88 * share})`;
      pen.fillRect(x, y, Math.max(cell - gap, 1), Math.max(cell - gap, 1));
      if (cell >= 20) { pen.fillStyle = share > 0.5 ? style("--paper") : ink; pen.fillText(count, x + cell / 2, y + cell / 2); }
    }
    if (chosen) {
      pen.strokeStyle = style("--s2"); pen.lineWidth = 2;
      pen.strokeRect(margin + (chosen[1] - view.x) * cell, margin + (chosen[0] - view.y) * cell, cell, cell);
    }
    pen.restore();
    if (!shown) return;
    pen.fillStyle = soft; pen.textBaseline = "middle";
    for (let at = Math.floor(view.y); at < Math.min(size, view.y + view.span); at += 1) {
      const y = margin + (at + 0.5 - view.y) * cell;
      if (y > margin) { pen.textAlign = "right"; pen.fillText(fit(names[order[at]], margin - 8), margin - 5, y); }
    }
    for (let at = Math.floor(view.x); at < Math.min(size, view.x + view.span); at += 1) {
      const x = margin + (at + 0.5 - view.x) * cell;
      if (x < margin) continue;
      pen.save(); pen.translate(x, margin - 5); pen.rotate(-Math.PI / 2); pen.textAlign = "left";
      pen.fillText(fit(names[order[at]], margin - 8), 0, 0); pen.restore();
    }
  }
  function zoom(factor, x, y) {
    const span = view.span;
    view.span = span * factor; clamp();
    const moved = (span - view.span) / span;
    view.x += (x - view.x) * moved; view.y += (y - view.y) * moved; clamp(); draw();
  }
  function at(event) {
    const rect = canvas.getBoundingClientRect();
    return [view.x + (event.clientX - rect.left - frame.left) / frame.cell, view.y + (event.clientY - rect.top - frame.top) / frame.cell];
  }
  function tell([x, y]) {
    const row = Math.floor(y), column = Math.floor(x);
    if (x < view.x || y < view.y || row >= size || column >= size || row < 0 || column < 0) return;
    const label = order[row], guess = order[column], count = clips.get(label * size + guess) || 0;
    chosen = [row, column];
    told.textContent = counts[label] === 0 ? `${names[label]}: no clips` : label === guess
      ? `${names[label]}: ${count} of ${counts[label]} recognised`
      : `${names[label]}, taken for ${names[guess]}: ${count} of ${counts[label]}`;
    draw();
  }
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "confusion matrix; plus and minus zoom, arrows move");
  canvas.addEventListener("wheel", event => {
    if (!event.ctrlKey && view.span >= size && event.deltaY > 0) return; // the page may scroll on
    event.preventDefault(); zoom(Math.exp(event.deltaY * 0.002), ...at(event));
  }, { passive: false });
  const fingers = new Map();
  canvas.addEventListener("pointerdown", event => { fingers.set(event.pointerId, event); canvas.setPointerCapture(event.pointerId); tell(at(event)); });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, event => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before) { if (event.pointerType === "mouse") tell(at(event)); return; }
    const others = [...fingers.values()].filter(finger => finger.pointerId !== event.pointerId);
    if (others.length) {
      const apart = (a, b) => Math.max(8, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY));
      zoom(apart(before, others[0]) / apart(event, others[0]), ...at(event));
    } else {
      view.x -= (event.clientX - before.clientX) / frame.cell; view.y -= (event.clientY - before.clientY) / frame.cell;
      clamp(); draw();
    }
    fingers.set(event.pointerId, event);
  });
  canvas.addEventListener("keydown", event => {
    const middle = [view.x + view.span / 2, view.y + view.span / 2], step = view.span / 8;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "+" || event.key === "=") zoom(0.7, ...middle);
    else if (event.key === "-") zoom(1.4, ...middle);
    else if (moves[event.key]) { view.x += moves[event.key][0]; view.y += moves[event.key][1]; clamp(); draw(); }
    else return;
    event.preventDefault();
  });
  box.querySelector("[data-zoom=in]").addEventListener("click", () => zoom(0.6, view.x + view.span / 2, view.y + view.span / 2));
  box.querySelector("[data-zoom=out]").addEventListener("click", () => zoom(1.6, view.x + view.span / 2, view.y + view.span / 2));
  box.querySelector("[data-zoom=all]").addEventListener("click", () => zoom(size, 0, 0));
  select.addEventListener("change", () => { order = orders[Number(select.value)].labels; chosen = null; told.textContent = ""; resort(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(draw).observe(box);
  clamp();
  resort();
}
