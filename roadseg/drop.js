// The field of explore.DropField. What is dropped or chosen goes to the kernel as one message.
const MOST = 8e6; // bytes: JupyterLab ends a connection over which more comes at once

function render({ model, el }) {
  const field = document.createElement("label");
  const told = document.createElement("span");
  const input = document.createElement("input");
  const ask = "Drop an image here, or click to choose one";
  field.className = "roadseg-drop";
  told.textContent = ask;
  Object.assign(input, { type: "file", accept: "image/*" });
  field.append(told, input);
  el.append(field);

  async function take(file) {
    if (!file) return;
    const large = file.size > MOST;
    told.textContent = large ? `${file.name} is larger than ${MOST / 1e6} MB: give its path instead` : ask;
    if (!large) model.send({ name: file.name }, undefined, [await file.arrayBuffer()]);
  }
  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  const over = on => event => {
    event.preventDefault(); // else the browser opens the file
    event.stopPropagation();
    field.classList.toggle("over", on);
  };
  field.addEventListener("dragover", over(true));
  field.addEventListener("dragleave", over(false));
  field.addEventListener("drop", event => {
    over(false)(event);
    take(event.dataTransfer.files[0]);
  });
}

export default { render };
