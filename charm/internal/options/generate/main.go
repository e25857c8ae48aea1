// Generate writes what operators read of the options: config.yaml, docs/options.md, and the
// table in README.md. Run it as `make options`.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

func main() {
	if err := write("../../.."); err != nil { // go generate runs it in the directory of package options
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// files are those that are generated, by their paths below the module.
var files = map[string]func(before string) (string, error){
	"charm/config.yaml": func(string) (string, error) { return configYAML(options.Table()), nil },
	"docs/options.md":   func(string) (string, error) { return manual(options.Table()), nil },
	"README.md":         func(before string) (string, error) { return replaceTable(before, options.Table()) },
}

func write(module string) error {
	for name, make := range files {
		path := filepath.Join(module, name)
		before, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return err
		}
		content, err := make(string(before))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func configYAML(table []options.Option) string {
	var b strings.Builder
	b.WriteString("# Made by `make options` from charm/internal/options/table.go.\noptions:\n")
	for _, o := range table {
		value := o.DefaultText()
		if o.Kind() == "string" {
			value = fmt.Sprintf("%q", value)
		}
		fmt.Fprintf(&b, "  %s:\n    type: %s\n    default: %s\n    description: |\n%s",
			o.Name, o.Kind(), value, wrap(o.Doc, "      "))
	}
	return b.String()
}

func manual(table []options.Option) string {
	var b strings.Builder
	b.WriteString(`<!-- Made by ` + "`make options`" + ` from charm/internal/options/table.go. -->
# Options

A change restarts the processes that read the option, and no other. An option that has its
default is not handed on. All values that cannot be meant, or that Concourse would refuse,
are named in one status; until they are mended, what runs goes on as it was.
`)
	for _, role := range []options.Role{options.Charm, options.Both, options.Web, options.Worker} {
		fmt.Fprintf(&b, "\n## Read by %s\n", role)
		for _, o := range table {
			if o.Role != role {
				continue
			}
			fmt.Fprintf(&b, "\n### `%s`\n\n%s, default %s", o.Name, o.Kind(), code(o.DefaultText()))
			if o.Variable != "" {
				fmt.Fprintf(&b, ", Concourse's `%s`", o.Variable)
			}
			if o.Since != "" {
				fmt.Fprintf(&b, ", since Concourse %s", o.Since)
			}
			b.WriteString("\n\n" + wrap(o.Doc, ""))
		}
	}
	return b.String()
}

const begin, end = "<!-- options: made by `make options` -->\n", "<!-- end of options -->\n"

// replaceTable replaces what is between begin and end.
func replaceTable(text string, table []options.Option) (string, error) {
	before, rest, ok := strings.Cut(text, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("no lines %q and %q", begin, end)
	}
	rows := "| option | default | meaning |\n| --- | --- | --- |\n"
	for _, o := range table {
		summary, _, _ := strings.Cut(o.Doc, ". ")
		rows += fmt.Sprintf("| `%s` | %s | %s |\n", o.Name, code(o.DefaultText()), strings.TrimSuffix(summary, "."))
	}
	return before + begin + rows + end + after, nil
}

func code(text string) string {
	if text == "" {
		return "empty"
	}
	return "`" + text + "`"
}

// wrap breaks a text into lines, each with an indent.
func wrap(text, indent string) string {
	const width = 78
	var lines []string
	line := indent
	for _, word := range strings.Fields(text) {
		if line != indent && len(line)+1+len(word) > width {
			lines, line = append(lines, line), indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	return strings.Join(append(lines, line), "\n") + "\n"
}
