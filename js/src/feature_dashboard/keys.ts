// j and k walk, / searches, ? explains. Keys typed into a field stay there; keys used here do not reach the notebook,
// where j and k would move between cells.

interface Keys {
  step: (step: 1 | -1) => void;
  search?: () => void;
  help: () => void;
}

export function featureKeys({ step, search, help }: Keys): (event: KeyboardEvent) => void {
  return (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if ((event.target as Element).closest("input, textarea, select")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/" && search) search();
    else if (event.key === "?") help();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
}
