package judge_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// row is a sound record with a change.
type row struct {
	name   string
	change func(r *observation.Record)
	says   string // is in a line about it
}

// table has the rows of one rule.
type table struct {
	rule   string
	breaks []row // must break it
	keeps  []row // are like those that break it, and must not
}

var tables = slices.Concat(
	secretTables, panicTables, statusTables, restartTables, optionTables, hookTables, programTables, fileTables,
	mountTables, currentTables, modelTables, volumeTables, keptTables, downloadTables, receivedTables, diskTables, webTables,
	orderTables, turnTables, pauseTables, buildTables, seenTables,
)

func ruleOf(t *testing.T, name string) judge.Rule {
	rules := append(judge.Always(), judge.Seen())
	i := slices.IndexFunc(rules, func(rule judge.Rule) bool { return rule.Name == name })
	require.GreaterOrEqual(t, i, 0, "no rule of this name")
	return rules[i]
}

func texts(violations []judge.Violation) (all []string) {
	for _, v := range violations {
		all = append(all, v.String())
	}
	return all
}

func TestRules(t *testing.T) {
	for _, table := range tables {
		for _, row := range table.breaks {
			t.Run(table.rule+"/"+row.name, func(t *testing.T) {
				r := sound()
				row.change(r)
				found := judge.Judge(*r, ruleOf(t, table.rule))
				require.NotEmpty(t, found)
				require.Contains(t, strings.Join(texts(found), "\n"), row.says)
				require.NotEmpty(t, row.says)
			})
		}
		for _, row := range table.keeps {
			t.Run(table.rule+"/not for "+row.name, func(t *testing.T) {
				r := sound()
				row.change(r)
				require.Empty(t, texts(judge.Judge(*r, ruleOf(t, table.rule))))
			})
		}
	}
}

// A rule that nothing breaks proves nothing.
func TestEveryRuleCanBreak(t *testing.T) {
	names := map[string]bool{}
	for _, rule := range append(judge.Always(), judge.Seen()) {
		require.False(t, names[rule.Name], "two rules are called %s", rule.Name)
		names[rule.Name] = true
		require.Regexp(t, `^[a-z]+(-[a-z]+)+$`, rule.Name)
		require.Regexp(t, `^[A-Z].*\.$`, rule.Promise, "%s: the promise is a sentence", rule.Name)
		require.True(t, slices.ContainsFunc(tables, func(table table) bool {
			return table.rule == rule.Name && len(table.breaks) > 0
		}), "no record breaks %s", rule.Name)
	}
}
