"use strict";
(() => {
  const make = (name, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };
  document.documentElement.classList.add("js");

  // Sortable tables: each heading becomes a button. Empty cells stay at the end.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    const original = [...body.rows];
    const key = (row, column) => {
      const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim();
      const number = Number(text.replace(/[,+]/g, "").replace("−", "-"));
      return text === "" ? null : Number.isNaN(number) ? text : number;
    };
    heads.forEach((head, column) => {
      const button = make("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const sorted = original.map((row, place) => [key(row, column), place, row]).sort(([a, i], [b, j]) => {
          if (a === null || b === null) return (a === null) - (b === null) || i - j;
          const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
          return (up ? order : -order) || i - j;
        });
        body.append(...sorted.map(([, , row]) => row));
      });
    });
  }

  // Scenes: two versions on top of each other with a divider between them, and a zoom.
  for (const scene of document.querySelectorAll(".scene")) {
    const images = [...scene.querySelectorAll(".versions img")];
    const width = Number(scene.dataset.width), height = Number(scene.dataset.height);
    const chooser = (label, chosen) => {
      const select = make("select", {}, ...images.map((p, i) => make("option", { value: i }, p.dataset.version)));
      select.selectedIndex = chosen;
      select.setAttribute("aria-label", `${scene.dataset.name}: ${label.toLowerCase()} image`);
      return [select, make("label", {}, label, select)];
    };
    const hr = images.findIndex((p) => p.dataset.version === "HR");
    const [left, leftLabel] = chooser("Left", 1), [right, rightLabel] = chooser("Right", Math.max(0, hr - 1));
    const slider = make("input", { type: "range", min: 0, max: 100, step: 1, value: 50 });
    slider.setAttribute("aria-label", `${scene.dataset.name}: divider between left and right image`);
    const under = make("img", { alt: "" }), over = make("img", { alt: "" });
    const divider = make("div", { className: "divider" });
    const stage = make("div", { className: "stage" }, under, over, divider);
    const view = make("div", { className: "window", tabIndex: 0 }, stage);
    view.setAttribute("role", "region");
    view.setAttribute("aria-label", `${scene.dataset.name}, zoomed; arrow keys scroll`);

    let zoom = 1;
    const divide = () => {
      const x = view.scrollLeft + (slider.value / 100) * Math.min(view.clientWidth, stage.clientWidth);
      over.style.clipPath = `inset(0 0 0 ${x}px)`;
      divider.style.left = `${x}px`;
    };
    const zooms = [1, 2, 4, 8].map((factor) => {
      const button = make("button", { type: "button" }, `${factor}×`);
      button.addEventListener("click", () => enlarge(factor));
      return button;
    });
    // The point at the middle of the window stays there unless another point is given.
    const enlarge = (factor, x, y) => {
      x ??= (view.scrollLeft + view.clientWidth / 2) / zoom;
      y ??= (view.scrollTop + view.clientHeight / 2) / zoom;
      zoom = factor;
      stage.style.width = `${width * zoom}px`;
      stage.style.height = `${height * zoom}px`;
      view.scrollTo(x * zoom - view.clientWidth / 2, y * zoom - view.clientHeight / 2);
      zooms.forEach((button, i) => button.setAttribute("aria-pressed", String([1, 2, 4, 8][i] === zoom)));
      divide();
    };
    const show = () => {
      under.src = images[left.value].src;
      over.src = images[right.value].src;
      under.alt = `left: ${images[left.value].dataset.version}`;
      over.alt = `right: ${images[right.value].dataset.version}`;
    };
    const details = scene.dataset.boxes.split(";").filter(Boolean).map((box, i) => {
      const [x, y, side] = box.split(",").map(Number);
      const button = make("button", { type: "button" }, `detail ${i + 1}`);
      button.addEventListener("click", () => enlarge(4, x + side / 2, y + side / 2));
      return button;
    });
    const group = make("span", {}, "Zoom ", ...zooms, " ", ...details);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Zoom");
    left.addEventListener("change", show);
    right.addEventListener("change", show);
    slider.addEventListener("input", divide);
    view.addEventListener("scroll", divide);
    window.addEventListener("resize", divide);
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const frame = view.getBoundingClientRect();
      slider.value = (100 * (event.clientX - frame.left)) / Math.min(view.clientWidth, stage.clientWidth);
      divide();
    });
    const controls = make("div", { className: "controls" }, leftLabel, rightLabel, make("label", {}, "Divider", slider), group);
    scene.querySelector(".versions").before(make("div", { className: "viewer" }, controls, view));
    show();
    enlarge(view.parentElement.clientWidth >= 2 * width ? 2 : 1);
  }

  // The table of contents marks the section that the reader is in.
  const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((a) => a.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "location");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));
})();
