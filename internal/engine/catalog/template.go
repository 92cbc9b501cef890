package catalog

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/itchyny/gojq"
)

// nameForm is what stands for something known: {version}.
var nameForm = regexp.MustCompile(`\{([a-z][a-z0-9_]*)\}`)

// Names lists what a template asks for.
func Names(template string) []string {
	var list []string
	for _, m := range nameForm.FindAllStringSubmatch(template, -1) {
		list = append(list, m[1])
	}
	return list
}

// Expand puts what is known into a template: {NAME} becomes known["NAME"]. Something unknown is an error.
func Expand(template string, known map[string]string) (string, error) {
	return expand(template, known, func(s string) string { return s })
}

func expand(template string, known map[string]string, quote func(string) string) (string, error) {
	var missing error
	out := nameForm.ReplaceAllStringFunc(template, func(m string) string {
		value, ok := known[m[1:len(m)-1]]
		if !ok && missing == nil {
			missing = fmt.Errorf("%s in %q is not known", m, template)
		}
		return quote(value)
	})
	return out, missing
}

// Pattern compiles a regular expression (RE2) with {NAME}s, which stand for exactly what is known. It fits whole texts.
func Pattern(match string, known map[string]string) (*regexp.Regexp, error) {
	text, err := expand(match, known, regexp.QuoteMeta)
	if err != nil {
		return nil, err
	}
	text = "^(?:" + text + ")$"
	if err := heavy(text); err != nil {
		return nil, err
	}
	return regexp.Compile(text)
}

// Compile compiles a jq program in which $NAME stands for each of names, in sorted order, which is that of its arguments.
// It can read nothing but its input.
func Compile(program string, names []string) (*gojq.Code, error) {
	query, err := gojq.Parse(program)
	if err != nil {
		return nil, err
	}
	vars := make([]string, 0, len(names))
	for _, name := range names {
		vars = append(vars, "$"+name)
	}
	slices.Sort(vars)
	return gojq.Compile(query, gojq.WithVariables(slices.Compact(vars)))
}

var variableForm = regexp.MustCompile(`\$([a-z][a-z0-9_]*)`)

// variables lists what a jq program asks for by $NAME, local variables included.
func variables(program string) []string {
	var list []string
	for _, m := range variableForm.FindAllStringSubmatch(program, -1) {
		list = append(list, m[1])
	}
	return list
}
