const study = document.body.dataset.study, kept = "study-" + study;
let choices = {}; try { choices = JSON.parse(localStorage.getItem(kept)) || {}; } catch (e) {}
const pairs = [...document.querySelectorAll(".pair")];
function show() {
  for (const pair of pairs) for (const button of pair.querySelectorAll("button"))
    button.classList.toggle("taken", choices[pair.id] === button.dataset.side);
  document.getElementById("count").textContent = `${Object.keys(choices).length} of ${pairs.length} chosen`;
}
for (const pair of pairs) for (const button of pair.querySelectorAll("button")) button.onclick = () => {
  choices[pair.id] = button.dataset.side;
  try { localStorage.setItem(kept, JSON.stringify(choices)); } catch (e) {}
  show();
};
document.getElementById("save").onclick = () => {
  const person = document.getElementById("person").value;
  const text = JSON.stringify({study, person, choices}, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  link.download = "choices" + (person ? "-" + person.replace(/[^a-z0-9]+/gi, "-") : "") + ".json";
  link.click();
};
show();
