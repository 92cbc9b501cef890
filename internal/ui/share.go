package ui

// Actions are what the console can do, by name, with what each does: other ways to use the engine name theirs the same.
func Actions() map[string]string {
	names := map[string]string{}
	for _, a := range bindings() {
		names[a.name] = a.help
	}
	return names
}

// Quote spells a word for a shell, without what a terminal would take for a command.
func Quote(word string) string { return quote(clean(word)) }
