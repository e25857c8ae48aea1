// Package options declares the options of the charm, each once: what operators read of it,
// its default, who reads it, and what is refused. The files config.yaml, docs/options.md and
// README.md are made from it; package plan reads the values as a Config.
package options

//go:generate go run ./generate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Role says who reads an option.
type Role string

const (
	Charm  Role = "the charm itself"
	Web    Role = "the web server"
	Worker Role = "the worker"
	Both   Role = "the web server and the worker"
)

// includes tells whether a process of a role reads what is of role r.
func (r Role) includes(role Role) bool { return r == role || r == Both }

// Option is one row of the table.
type Option struct {
	Name    string
	Doc     string // for operators; the first sentence stands alone in tables
	Default any    // of the type of its field
	Role    Role
	// Variable is Concourse's name for it: the environment variable in which the processes
	// of Role get it, unless it has its default. Derived says that package concourse makes
	// that variable, of this option and of other things.
	Variable string
	Derived  bool
	// Since is the first release that knows Variable; empty for all that the charm can run.
	// An older one does not get it: a rollback must not fail for an option.
	Since string
	// List says that the value has items with commas between them.
	List bool
	// Secret says that the value may hold a password: no message shows it.
	Secret bool

	field func(*Config) any // pointer to it
	check func(Option, Config) string
}

// handedOn tells whether the process gets the value as it is. Its default, and an empty
// one, is not handed on.
func (o Option) handedOn() bool { return o.Variable != "" && !o.Derived }

// Kind is the type that Juju has for it.
func (o Option) Kind() string {
	switch o.Default.(type) {
	case int:
		return "int"
	case bool:
		return "boolean"
	}
	return "string"
}

// DefaultText is its default, as Juju shows it.
func (o Option) DefaultText() string { return text(o.Default) }

// text is the value as it is handed on.
func (o Option) text(c Config) string {
	switch field := o.field(&c).(type) {
	case *string:
		if o.List {
			return strings.Join(items(*field), ",")
		}
		return strings.TrimSpace(*field)
	case *int:
		return text(*field)
	case *bool:
		return text(*field)
	case *time.Duration:
		return text(*field)
	}
	panic(fmt.Sprintf("option %s has a field of no known type", o.Name))
}

func text(value any) string {
	switch value := value.(type) {
	case int:
		return strconv.Itoa(value)
	case bool:
		return strconv.FormatBool(value)
	case time.Duration: // 1h0m0s is 1h
		short := strings.TrimSuffix(value.String(), "m0s")
		if short != value.String() {
			short += "m"
		}
		if trimmed, whole := strings.CutSuffix(short, "h0m"); whole {
			short = trimmed + "h"
		}
		return short
	}
	return value.(string)
}

// items are those of a list.
func items(list string) []string {
	all := strings.Split(list, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return slices.DeleteFunc(all, func(item string) bool { return item == "" })
}

// Wrong returns a sentence for each option that cannot be meant, or that Concourse would
// refuse, in the order of the table.
func Wrong(c Config) []string {
	var wrong []string
	for _, o := range Table() {
		if o.check == nil {
			continue
		}
		if sentence := o.check(o, c); sentence != "" {
			wrong = append(wrong, sentence)
		}
	}
	return wrong
}
