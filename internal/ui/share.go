package ui

import "github.com/ContainerCraft/kmi-tui/internal/engine"

// Actions are what the console can do, by name, with what each does: other ways to use the engine name theirs the same.
func Actions() map[string]string {
	names := map[string]string{}
	for _, a := range bindings() {
		names[a.name] = a.help
	}
	return names
}

// Expectation says in a sentence what a run of plans comes to.
func Expectation(plans []engine.Plan) string {
	p := planning{}
	for _, plan := range plans {
		p.plans = append(p.plans, harmless(plan))
	}
	return p.sum()
}
