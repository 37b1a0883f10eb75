fetch("api/sessions").then((answer) => answer.json()).then((told) => {
  document.getElementById("sessions").textContent = JSON.stringify(told, null, 2);
});
