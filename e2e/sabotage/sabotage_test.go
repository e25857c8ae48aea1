package sabotage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// demands are rules that a scenario applies itself.
var demands = []string{"undisturbed", "unhurried"}

// Every patch applies to what is checked out, and names a scenario and a rule that exist.
func TestPatches(t *testing.T) {
	all, err := Read(".")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 15)
	scenarios := map[string]bool{}
	for _, sc := range suite.All() {
		scenarios[sc.Name] = true
	}
	rules := map[string]bool{}
	for _, r := range judge.Always() {
		rules[r.Name] = true
	}
	for _, name := range demands {
		rules[name] = true
	}
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			require.True(t, scenarios[s.Scenario], "no scenario %s", s.Scenario)
			require.True(t, rules[s.Rule], "no rule %s", s.Rule)
			path, err := filepath.Abs(s.path)
			require.NoError(t, err)
			check := exec.CommandContext(t.Context(), "git", "apply", "--check", path)
			check.Dir = filepath.Join("..", "..")
			out, err := check.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

func TestParse(t *testing.T) {
	const hunk = "\n--- a/x\n+++ b/x\n"
	s, err := parse("x", "Promise: It works.\nScenario: auto\nRule: one-download\n"+hunk)
	require.NoError(t, err)
	require.Equal(t, Sabotage{Name: "x", Promise: "It works.", Scenario: "auto", Rule: "one-download"}, s)
	for _, text := range []string{
		"Scenario: auto\nRule: one-download\n" + hunk,
		"Promise: It works.\nRule: one-download\n" + hunk,
		"Promise: It works.\nScenario: auto\n" + hunk,
		"Promise: It works.\nScenario: auto\nRule: one-download\n",
		"Promise: It works.\nScenario: auto\n" + hunk + "Rule: one-download\n",
	} {
		_, err := parse("x", text)
		require.ErrorContains(t, err, "x.patch", "%s", text)
	}
}

// repository is one in which `go test` writes a report of what the file says.
func repository(t *testing.T) Bench {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
	}
	write("says", "nothing\n", 0o644)
	write("bin/go", `#!/bin/sh
mkdir -p "$E2E_ARTIFACTS/auto"
case $(cat says) in
nothing) echo '{}' ;;
silent) exit 1 ;;
*) printf '{"failures": ["%s"]}' "$(cat says)" ;;
esac > "$E2E_ARTIFACTS/auto/report.json"
`, 0o755)
	git := func(args ...string) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "-m", "x")
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	return Bench{Root: dir, Artifacts: filepath.Join(t.TempDir(), "sabotage")}
}

func (b Bench) saying(t *testing.T, text string) Sabotage {
	path := filepath.Join(t.TempDir(), "x.patch")
	require.NoError(t, os.WriteFile(path, []byte("--- a/says\n+++ b/says\n@@ -1 +1 @@\n-nothing\n+"+text+"\n"), 0o644))
	return Sabotage{Name: "x", Scenario: "auto", Rule: "one-download", path: path}
}

func TestTry(t *testing.T) {
	b := repository(t)
	r, err := b.Control(t.Context(), "auto")
	require.NoError(t, err)
	require.False(t, r.Red)
	for said, red := range map[string]bool{
		"one-download: twice":          true,
		"one-downloads: twice":         false,
		"waiting for three: timed out": false,
		"nothing that matters":         false,
	} {
		r, err := b.Try(t.Context(), b.saying(t, said))
		require.NoError(t, err)
		require.Equal(t, red, r.Red, said)
		require.Equal(t, said, r.Said)
		again, err := b.Try(t.Context(), b.saying(t, "something else"))
		require.NoError(t, err)
		require.Equal(t, r, again, "what was seen on this commit is not tried again")
		require.NoError(t, os.RemoveAll(b.Artifacts))
	}
	_, err = b.Try(t.Context(), b.saying(t, "silent"))
	require.ErrorContains(t, err, "has left no report")
	s := b.saying(t, "x")
	require.NoError(t, os.WriteFile(s.path, []byte("--- a/says\n+++ b/says\n@@ -1 +1 @@\n-what was there\n+x\n"), 0o644))
	_, err = b.Try(t.Context(), s)
	require.ErrorContains(t, err, "does not apply any more")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Try(ended, b.saying(t, "x"))
	require.ErrorIs(t, err, context.Canceled)
}
