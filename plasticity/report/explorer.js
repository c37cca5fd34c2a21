// The charts of one group of runs and their shared legend.
class Explorer {
  constructor(root, group, index) {
    Object.assign(this, { root, group, index, hidden: new Set(), range: {}, task: null, lit: null });
    this.keys = [...root.querySelectorAll(".key")];
    this.keys.forEach((key, place) => {
      key.addEventListener("click", (event) => (event.shiftKey ? this.only(place) : this.toggle(place)));
      for (const [type, lit] of [["pointerenter", place], ["focus", place], ["pointerleave", null], ["blur", null]])
        key.addEventListener(type, () => this.light(lit));
    });
    root.querySelector('[data-do="all"]').addEventListener("click", () => this.show(() => true));
    root.querySelector('[data-do="none"]').addEventListener("click", () => this.show(() => false));
    this.charts = [...root.querySelectorAll(".chart")].map((section) => new Chart(this, section));
    const wanted = new URLSearchParams(location.hash.slice(1)).getAll("hide");
    this.show((place) => !wanted.includes(group.series[place].label));
  }

  toggle(place) {
    if (!this.hidden.delete(place)) this.hidden.add(place);
    this.update();
  }

  only(place) {
    const alone = this.hidden.size === this.keys.length - 1 && !this.hidden.has(place);
    this.show((each) => alone || each === place);
  }

  show(wanted) {
    this.hidden = new Set(this.group.series.map((_, place) => place).filter((place) => !wanted(place)));
    this.update();
  }

  chooseTask(task) {
    this.task = task;
    this.charts.forEach((chart) => {
      chart.tasks.value = task ?? "";
      chart.tall = null;
      chart.update();
    });
  }

  light(place) {
    this.lit = place;
    this.charts.forEach((chart) => chart.light(place));
  }

  update() {
    this.keys.forEach((key, place) => key.setAttribute("aria-pressed", String(!this.hidden.has(place))));
    this.charts.forEach((chart) => chart.update());
  }

  zoom(axis, range) { // charts with the same axis show the same range
    this.range[axis] = range;
    this.charts.forEach((chart) => chart.axis === axis && chart.update());
  }

  visitAt(x, axis) {
    if (axis === "visit") return x - 1;
    const ends = this.group.ends;
    let low = 0, high = ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle] >= x * (1 - 1e-12)) high = middle; else low = middle + 1;
    }
    return low;
  }

  taskOf(visit) {
    return this.group.task_of ? this.group.task_of[visit] : null;
  }
}

for (const drawn of document.querySelectorAll(".swatch[data-marker]"))
  if (drawn.dataset.marker) drawn.insertAdjacentHTML("beforeend", mark(drawn.dataset.marker, 17, 6));
const explorers = [...document.querySelectorAll(".explorer")].map((root) => {
  const index = Number(root.dataset.group);
  return new Explorer(root, data[index], index);
});
