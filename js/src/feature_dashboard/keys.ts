// j and k walk, / searches. Keys typed into a field stay there.

interface Keys {
  step: (step: 1 | -1) => void;
  search?: () => void;
}

export function featureKeys({ step, search }: Keys): (event: KeyboardEvent) => void {
  return (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if ((event.target as Element).closest("input:not([type=range], [type=checkbox]), textarea, select")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/" && search) search();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
}
