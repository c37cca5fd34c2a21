// One chart: selection, points, drawing, and display of values.
class Chart {
  constructor(explorer, section) {
    Object.assign(this, { explorer, section, name: section.dataset.chart, group: explorer.group, tall: null, cursor: null });
    this.axis = this.name === "visits" ? "visit" : "stream";
    this.metrics = this.group.charts[this.name];
    this.svg = section.querySelector(".figure");
    this.tip = section.querySelector(".tip");
    this.said = section.querySelector(".said");
    this.makeControls(section.querySelector(".controls"));
    this.makeThumbs(section.querySelector(".small"));
    this.listen();
    this.choose(0, false);
    new ResizeObserver(() => this.width !== this.svg.clientWidth && this.update()).observe(this.svg.parentElement);
  }

  // selection

  makeControls(place) {
    this.select = element("select", { "aria-label": "metric" });
    let family = null;
    this.metrics.forEach((metric, index) => {
      const [whole, part] = metric.name.split(/\/(.*)/s);
      const option = element("option", { value: index }, metric.label);
      if (this.name === "monitors" && part) {
        if (!family || family.label !== `${whole}, in parts`) {
          family = element("optgroup", { label: `${whole}, in parts` });
          this.select.append(family);
        }
        family.append(option);
      } else this.select.append(option);
    });
    this.select.addEventListener("change", () => this.choose(Number(this.select.value)));
    this.logButton = element("button", { type: "button", "aria-pressed": "false" }, "log scale");
    this.logButton.addEventListener("click", () => { this.log = !this.log; this.tall = null; this.update(); });
    this.back = element("button", { type: "button", class: "back", hidden: "" }, "whole range");
    this.back.addEventListener("click", () => this.reset());
    place.append(this.select, ...this.makeTasks(), this.logButton, this.back);
  }

  get task() {
    return this.explorer.task;
  }

  makeTasks() {
    if (!this.group.by_task) return [];
    this.tasks = element("select", { "aria-label": "task" });
    this.tasks.append(element("option", { value: "" }, "all tasks"));
    this.group.tasks.forEach((task, index) => this.tasks.append(element("option", { value: index }, task)));
    this.tasks.addEventListener("change", () => this.explorer.chooseTask(this.tasks.value === "" ? null : Number(this.tasks.value)));
    return [this.tasks];
  }

  makeThumbs(place) { // a thumbnail of each monitor, or of each task if tasks have their own scales
    this.thumbs = [];
    if (this.name === "monitors")
      this.metrics.forEach((metric, index) => metric.name.includes("/") || this.addThumb(place, metric.label, {
        metric: () => metric, task: () => this.task, chosen: () => this.metric === metric, choose: () => this.choose(index) }));
    else if (this.group.by_task)
      this.group.tasks.forEach((name, task) => this.addThumb(place, name, {
        metric: () => this.metric, task: () => task, chosen: () => this.task === task,
        choose: () => this.explorer.chooseTask(this.task === task ? null : task) }));
    if (this.thumbs.length < 2) place.hidden = true;
  }

  addThumb(place, label, what) {
    const button = element("button", { type: "button", class: "thumb" });
    button.innerHTML = '<svg viewBox="0 0 160 62" preserveAspectRatio="none" aria-hidden="true"></svg>';
    button.append(element("span", {}, label));
    button.addEventListener("click", what.choose);
    place.append(button);
    this.thumbs.push({ button, ...what });
  }

  choose(index, redraw = true) {
    this.metric = this.metrics[index];
    this.log = this.metric.log;
    this.tall = null;
    this.cursor = null;
    this.select.value = index;
    if (redraw) this.update();
  }

  reset() {
    this.tall = null;
    this.explorer.zoom(this.axis, null);
  }

  // from data to points

  lines(metric = this.metric, task = this.task) { // the visible lines: positions, means, ends of intervals, and the visit of each position
    const [least, most] = metric.range ?? [null, null];
    return metric.lines.filter((line) => !this.explorer.hidden.has(line.s)).map((line) => {
      const grid = this.group.grids[line.g], points = [];
      grid.forEach((x, index) => {
        const visit = this.explorer.visitAt(x, this.axis);
        if (task !== null && this.explorer.taskOf(visit) !== task) return;
        const y = line.m[index], half = line.h ? line.h[index] : null; // an interval ends where the number's range does
        const low = half === null ? null : Math.min(y, Math.max(y - half, least ?? -Infinity));
        points.push({ x, y, low, high: half === null ? null : Math.max(y, Math.min(y + half, most ?? Infinity)), visit });
      });
      return { series: line.s, points };
    });
  }

  whole() { // the full range of the axis
    if (this.axis === "visit") return [0.5, this.group.ends.length + 0.5];
    return [0, this.group.ends[this.group.ends.length - 1]];
  }

  vertical(lines, [left, right]) {
    if (this.tall) return this.tall;
    let low = Infinity, high = -Infinity;
    for (const line of lines)
      for (const point of line.points) {
        if (point.x < left || point.x > right || (this.log && point.y <= 0)) continue;
        const below = point.low ?? point.y;
        low = Math.min(low, this.log && below <= 0 ? point.y / 2 : below);
        high = Math.max(high, point.high ?? point.y);
      }
    if (!(low <= high)) return this.log ? [0.1, 1] : [0, 1];
    if (this.log) { const room = (high / low) ** 0.04; return low === high ? [low / 2, high * 2] : [low / room, high * room]; }
    const room = high > low ? 0.05 * (high - low) : Math.abs(high) * 0.05 || 0.5;
    return [low - room, high + room];
  }

  // drawing

  update() {
    const width = (this.width = this.svg.clientWidth || 760), narrow = width < 520;
    const height = narrow ? 260 : 360, box = { left: 50, right: width - 12, top: 20, bottom: height - 40 };
    const lines = this.lines(), range = this.explorer.range[this.axis] || this.whole(), tall = this.vertical(lines, range);
    const scale = this.log ? Math.log : (value) => value, [low, high] = tall.map(scale);
    Object.assign(this, { box, range, shown: lines, tallNow: tall });
    this.toX = (x) => box.left + ((x - range[0]) / (range[1] - range[0])) * (box.right - box.left);
    this.toY = (y) => box.bottom - ((scale(this.log ? Math.max(y, tall[0] / 1e3) : y) - low) / (high - low)) * (box.bottom - box.top);
    this.fromX = (at) => range[0] + ((at - box.left) / (box.right - box.left)) * (range[1] - range[0]);
    this.fromY = (at) => {
      const value = low + ((box.bottom - at) / (box.bottom - box.top)) * (high - low);
      return this.log ? Math.exp(value) : value;
    };
    const clip = `clip-${this.explorer.index}-${this.name}`;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.described());
    this.svg.style.height = `${height}px`;
    this.svg.innerHTML =
      `<clipPath id="${clip}"><rect x="${box.left}" y="${box.top - 6}" width="${box.right - box.left}" ` +
      `height="${box.bottom - box.top + 12}"/></clipPath>` +
      this.frame(narrow) +
      `<g clip-path="url(#${clip})">${lines.map((line, place) => this.drawn(line, place, lines.length)).join("")}</g>` +
      '<g class="over"></g>';
    this.logButton.setAttribute("aria-pressed", String(this.log));
    this.back.hidden = !this.tall && !this.explorer.range[this.axis];
    this.thumbs.forEach((thumb) => this.drawThumb(thumb));
    this.light(this.explorer.lit);
    this.point(null);
  }

  described() {
    const shown = this.shown.length, label = this.metric.label;
    return `${label}, ${shown} of ${this.group.series.length} arms shown. Arrow keys read values, plus and minus zoom, escape shows the whole range.`;
  }

  frame(narrow) {
    const { box, range } = this, parts = [];
    if (this.axis === "stream") parts.push(this.switches());
    for (const tick of this.log ? logTicks(...this.tallNow) : linearTicks(...this.tallNow, 5)) {
      const y = this.toY(tick).toFixed(1);
      parts.push(`<line class="grid" x1="${box.left}" x2="${box.right}" y1="${y}" y2="${y}"/>`);
      parts.push(`<text x="${box.left - 8}" y="${y}" dy=".35em" text-anchor="end">${short(tick)}</text>`);
    }
    const whole = this.axis === "visit";
    for (const tick of linearTicks(...range, narrow ? 4 : 8, whole)) {
      const x = this.toX(tick).toFixed(1);
      parts.push(`<line class="axis" x1="${x}" x2="${x}" y1="${box.bottom}" y2="${box.bottom + 4}"/>`);
      parts.push(`<text x="${x}" y="${box.bottom + 18}" text-anchor="middle">${short(tick)}</text>`);
    }
    parts.push(`<line class="axis" x1="${box.left}" x2="${box.right}" y1="${box.bottom}" y2="${box.bottom}"/>`);
    parts.push(`<text x="${box.right}" y="${box.bottom + 35}" text-anchor="end">${whole ? "visit" : escaped(this.group.x)}</text>`);
    return parts.join("");
  }

  switches() { // light lines at task switches, and task names if they fit
    const { ends, tasks } = this.group, [left, right] = this.range, parts = [];
    const inside = ends.map((end, visit) => [visit ? ends[visit - 1] : 0, end, visit]).filter(([start, end]) => end > left && start < right);
    const every = Math.ceil(inside.length / 150), room = (this.box.right - this.box.left) / inside.length;
    for (const [start, end, visit] of inside) {
      if (start > left && visit % every === 0) {
        const x = this.toX(start).toFixed(1);
        parts.push(`<line class="switch" x1="${x}" x2="${x}" y1="${this.box.top}" y2="${this.box.bottom}"/>`);
      }
      const task = this.explorer.taskOf(visit);
      if (tasks.length < 2 || task === null || room < 6.6 * Math.max(...tasks.map((name) => name.length)) + 6) continue;
      const middle = (this.toX(Math.max(start, left)) + this.toX(Math.min(end, right))) / 2;
      parts.push(`<text x="${middle.toFixed(1)}" y="12" text-anchor="middle">${escaped(tasks[task])}</text>`);
    }
    return parts.join("");
  }

  drawn(line, place, crowd) {
    const points = line.points.filter((point) => !this.log || point.y > 0), look = this.group.series[line.series];
    const few = this.axis === "visit" && this.group.ends.length <= FEW, shift = few ? this.dodge(place, crowd) : 0;
    const at = (point) => [this.toX(point.x) + shift, this.toY(point.y)];
    const joined = this.axis === "visit" && this.group.by_task ? this.byTask(points) : pieces(points);
    const dash = dashes(look, 1.8);
    const parts = joined.map((piece) => `<path class="line" d="${trace(piece, at)}" stroke-dasharray="${dash}"/>`);
    parts.unshift(few ? this.whiskers(points, shift) : this.bands(points, crowd));
    const inView = points.filter((point) => point.x >= this.range[0] && point.x <= this.range[1]);
    const gap = few || inView.length <= 15 ? 1 : Math.max(1, Math.floor(inView.length / 7));
    const offset = gap === 1 ? 0 : Math.floor((place * gap) / Math.max(crowd, 1));
    if (look.marker || few || inView.length === 1)
      inView.forEach((point, index) => {
        if (index % gap === offset) parts.push(mark(look.marker, ...at(point)));
      });
    const thin = points.length > 150 ? " thin" : "";
    return `<g class="one${thin}" data-series="${line.series}" style="${this.colour(line.series)}">${parts.join("")}</g>`;
  }

  byTask(points) { // returns of different tasks have different scales: a line joins the visits to one task
    return this.group.tasks.map((_, task) => points.filter((point) => this.explorer.taskOf(point.visit) === task)).filter((piece) => piece.length);
  }

  dodge(place, crowd) { // arms next to each other within a visit
    const visit = this.toX(2) - this.toX(1);
    return Math.min(14, (0.7 * visit) / crowd) * (place - (crowd - 1) / 2);
  }

  whiskers(points, shift) {
    return points.filter((point) => point.low !== null).map((point) => {
      const [low, high] = [point.low, point.high].map((y) => fixed(this.toY(y)));
      return `<path class="whisker" d="M${fixed(this.toX(point.x) + shift)} ${low}V${high}"/>`;
    }).join("");
  }

  bands(points, crowd) {
    const opacity = crowd <= 8 ? 0.18 : 0.07;
    const at = ({ x, y }) => [this.toX(x), this.toY(y)];
    return pieces(points, (point) => point.low !== null).map((piece) => {
      const upper = piece.map(({ x, high }) => ({ x, y: high })), lower = piece.map(({ x, low }) => ({ x, y: low }));
      return `<path class="band" opacity="${opacity}" d="${trace([...upper, ...lower.reverse()], at)}Z"/>`;
    }).join("");
  }

  drawThumb({ button, chosen, metric: chosenMetric, task }) {
    const metric = chosenMetric(), lines = this.lines(metric, task());
    lines.forEach((line) => { line.points = line.points.filter((point) => !metric.log || point.y > 0); });
    const values = lines.flatMap((line) => line.points.map((point) => point.y)).sort((a, b) => a - b);
    const scale = metric.log ? Math.log : (value) => value, [left, right] = this.whole();
    const low = scale(values[0] ?? 1), high = scale(values[values.length - 1] ?? 1), span = high - low || 1;
    const at = (point) => [160 * (point.x - left) / (right - left), 58 - 54 * (scale(point.y) - low) / span];
    button.setAttribute("aria-pressed", String(chosen()));
    button.firstElementChild.innerHTML = '<path class="axis" fill="none" d="M0 61.5H160"/>' + lines.map(({ series, points }) => {
      const path = pieces(points).map((piece) => trace(piece, at)).join("");
      const dash = dashes(this.group.series[series], 1.2);
      return `<path class="line" style="${this.colour(series)}" stroke-dasharray="${dash}" d="${path}"/>`;
    }).join("");
  }

  colour(series) {
    return `--c:var(--g${this.explorer.index}s${series})`;
  }

  light(series) { // fade the others
    const some = series !== null && !this.explorer.hidden.has(series);
    for (const one of this.svg.querySelectorAll(".one")) one.classList.toggle("dim", some && Number(one.dataset.series) !== series);
  }

  // reading values

  listen() {
    const svg = this.svg;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.start = this.place(event);
      if (event.pointerType === "mouse") svg.setPointerCapture?.(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      const [x, y] = this.place(event);
      if (this.start && Math.abs(x - this.start[0]) > 4) this.mark(this.start, [x, y]);
      else if (!this.start) this.point(this.fromX(x), y);
    });
    svg.addEventListener("pointerup", (event) => this.release(this.place(event)));
    svg.addEventListener("pointercancel", () => { this.start = null; this.point(null); });
    svg.addEventListener("pointerleave", () => this.start || this.point(null));
    svg.addEventListener("dblclick", () => this.reset());
    svg.addEventListener("keydown", (event) => this.key(event));
    svg.addEventListener("blur", () => this.point(null));
  }

  place(event) {
    const where = this.svg.getBoundingClientRect();
    return [clamp(event.clientX - where.left, this.box.left, this.box.right), clamp(event.clientY - where.top, this.box.top, this.box.bottom)];
  }

  corners([x0, y0], [x1, y1]) { // a flat rectangle selects a range of the horizontal axis only
    const flat = Math.abs(y1 - y0) < 36;
    const [top, bottom] = flat ? [this.box.top, this.box.bottom] : [Math.min(y0, y1), Math.max(y0, y1)];
    return { left: Math.min(x0, x1), right: Math.max(x0, x1), top, bottom, flat };
  }

  mark(from, to) {
    const { left, right, top, bottom } = this.corners(from, to);
    this.point(null);
    this.svg.querySelector(".over").innerHTML = `<rect class="chosen" x="${left}" y="${top}" width="${right - left}" height="${bottom - top}"/>`;
  }

  release(to) {
    const from = this.start;
    this.start = null;
    if (!from) return;
    if (Math.abs(to[0] - from[0]) < 8) { this.point(this.fromX(to[0]), to[1]); return; }
    const { left, right, top, bottom, flat } = this.corners(from, to);
    const range = [this.fromX(left), this.fromX(right)];
    this.tall = flat ? null : [this.fromY(bottom), this.fromY(top)];
    if (this.axis !== "visit" || range[1] - range[0] > 0.2) this.explorer.zoom(this.axis, range);
  }

  values(x) { // the value nearest to x of each visible line
    const found = [];
    for (const line of this.shown) {
      const inside = line.points.filter((point) => point.x >= this.range[0] && point.x <= this.range[1]);
      if (inside.length) found.push({ series: line.series, ...inside[nearest(inside.map((point) => point.x), x)] });
    }
    const best = Math.min(...found.map((each) => Math.abs(each.x - x)));
    const slack = this.axis === "visit" ? 1e-9 : (this.range[1] - this.range[0]) / 60; // records of different arms may not coincide
    return found.filter((each) => Math.abs(each.x - x) <= best + slack);
  }

  point(x, y = null) { // show the values at x; y selects an arm
    const over = this.svg.querySelector(".over"), found = x === null ? [] : this.values(x);
    this.tip.hidden = !found.length;
    if (over) over.innerHTML = "";
    this.light(this.explorer.lit);
    if (!found.length) return;
    found.sort((a, b) => b.y - a.y);
    const distance = (each) => Math.abs(this.toY(each.y) - y);
    const meant = y === null ? null : found.reduce((best, each) => (distance(each) < distance(best) ? each : best));
    const middle = meant ? found.indexOf(meant) : 0, first = clamp(middle - 5, 0, Math.max(0, found.length - FEW));
    const at = (meant || found[0]).x, px = this.toX(at).toFixed(1);
    over.innerHTML = `<line class="cross" x1="${px}" x2="${px}" y1="${this.box.top}" y2="${this.box.bottom}"/>` + found.map((each) =>
      `<circle class="mark" r="3" style="${this.colour(each.series)}" cx="${fixed(this.toX(each.x))}" cy="${fixed(this.toY(each.y))}"/>`).join("");
    if (meant && found.length > 8) this.light(meant.series); // one line among many
    const rows = found.slice(first, first + FEW).map((each) => this.row(each, meant)).join("");
    this.tip.innerHTML = `<p class="where">${escaped(this.where(at))}</p><table>${rows}</table>` +
      (found.length > FEW ? `<p class="where">${found.length - FEW} more arms</p>` : "");
    const room = this.svg.clientWidth, wide = this.tip.offsetWidth, beside = Number(px) + 16;
    this.tip.style.left = `${Math.max(0, beside + wide > room ? Number(px) - wide - 16 : beside)}px`;
  }

  where(x) {
    const visit = this.explorer.visitAt(x, this.axis), task = this.explorer.taskOf(visit);
    const parts = [`visit ${(visit + 1).toLocaleString("en-GB")}`];
    if (task !== null && this.group.tasks.length > 1) parts.push(this.group.tasks[task]);
    if (this.axis === "stream") parts.push(`${x.toLocaleString("en-GB")} ${this.group.x}`);
    return parts.join(" · ");
  }

  bounds(each) {
    return each.low === null ? "" : `[${number(each.low)}, ${number(each.high)}]`;
  }

  row(each, meant) {
    const look = this.group.series[each.series];
    const who = `<div class="who">${swatch(look, this.colour(each.series))}<span>${escaped(look.label)}</span></div>`;
    return `<tr class="${each === meant ? "nearest" : ""}"><td>${who}</td>` +
      `<td class="n">${number(each.y)}</td><td class="bounds">${this.bounds(each)}</td></tr>`;
  }

  key(event) {
    const places = [...new Set(this.shown.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b)
      .filter((x) => x >= this.range[0] && x <= this.range[1]);
    const now = this.cursor === null ? -1 : nearest(places, this.cursor), last = places.length - 1;
    const moves = { ArrowRight: now + 1, ArrowLeft: now < 0 ? last : now - 1, Home: 0, End: last };
    if (event.key in moves && places.length) {
      this.cursor = places[clamp(moves[event.key], 0, last)];
      this.point(this.cursor);
      const said = (each) => `${this.group.series[each.series].label} ${number(each.y)} ${this.bounds(each)}`;
      this.said.textContent = `${this.where(this.cursor)}: ${this.values(this.cursor).slice(0, FEW).map(said).join(", ")}`;
    } else if (event.key === "Escape") this.reset();
    else if (event.key === "+" || event.key === "=" || event.key === "-") this.closer(event.key === "-" ? 2 : 0.5);
    else return;
    event.preventDefault();
  }

  closer(factor) {
    const [left, right] = this.range, whole = this.whole(), middle = this.cursor ?? (left + right) / 2;
    const half = ((right - left) * factor) / 2, range = [Math.max(whole[0], middle - half), Math.min(whole[1], middle + half)];
    this.explorer.zoom(this.axis, range[0] === whole[0] && range[1] === whole[1] ? null : range);
  }
}
