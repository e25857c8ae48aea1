package report_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

func TestReport(t *testing.T) {
	r := report.New("auto")
	require.NoError(t, r.Time("quick", time.Minute, func() error { return nil }))
	r.Add("upgrade", 3*time.Minute, 2*time.Minute, nil)
	require.Error(t, r.Time("broken", 0, func() error { return errors.New("no") }))
	r.Note("downloads", "%d", 0)
	r.Note("downloads", "%d", 1)
	r.End(report.Broken, []string{"no\n```\nsaid ```` somebody"})
	r.Evidence, r.Again = "artifacts/auto", "make again"

	require.Equal(t, []string{"upgrade", "broken"}, []string{r.Missed()[0].Name, r.Missed()[1].Name})

	var text, markdown strings.Builder
	require.NoError(t, r.WriteText(&text))
	require.Regexp(t, `upgrade +3m0s +< 2m0s +missed`, text.String())
	require.NoError(t, r.WriteMarkdown(&markdown))
	require.Contains(t, markdown.String(), "| upgrade | 3m0s | < 2m0s | missed  |")
	require.Contains(t, markdown.String(), "| downloads | 1     |")
	require.NotContains(t, markdown.String(), "| downloads | 0")
	require.Contains(t, markdown.String(), "`````\nno\n", "a fence that the text does not end")
	require.Less(t, strings.Index(markdown.String(), "make again"), strings.Index(markdown.String(), "| phase "), "failures come first")

	dir := t.TempDir()
	require.NoError(t, r.Save(dir))
	raw, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err)
	require.Contains(t, string(raw), `"verdict": "missed"`)
	require.True(t, json.Valid(raw))
	require.FileExists(t, filepath.Join(dir, "report.md"))
}

// A phase whose assertion ends the goroutine is in the report.
func TestPhaseThatDoesNotReturn(t *testing.T) {
	r := report.New("auto")
	var lines []string
	r.Show = func(line string) { lines = append(lines, line) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Time("upgrade", 0, func() error { new(testing.T).FailNow(); return nil })
	}()
	<-done
	require.Len(t, r.Missed(), 1)
	require.Equal(t, report.Broken, r.Missed()[0].Verdict)
	require.Equal(t, "upgrade", lines[0])
	require.Contains(t, lines[1], "failed")

	r.End(report.Broken, []string{"x"})
	require.Len(t, r.Phases, 1, "it is known where it failed")
}

// A phase of a scenario that was left behind has failed, and changes nothing later.
func TestPhaseThatHangs(t *testing.T) {
	r := report.New("auto")
	begun, released, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Time("upgrade", 0, func() error { close(begun); <-released; return nil })
		r.Note("too", "late")
	}()
	<-begun
	r.End(report.Broken, []string{"time is up"})
	close(released)
	<-done
	require.Len(t, r.Phases, 1)
	require.Equal(t, "upgrade", r.Phases[0].Name)
	require.Equal(t, report.Broken, r.Phases[0].Verdict)
	require.Empty(t, r.Facts)
}

// A scenario that fails between its phases says after which.
func TestFailureOutsideOfPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := report.New("auto")
		time.Sleep(time.Minute)
		r.Add("three units active", time.Minute, 0, nil)
		time.Sleep(time.Second)
		r.End(report.Broken, []string{"x"})
		require.Equal(t, report.Phase{Name: "after: three units active", Took: time.Second, Verdict: report.Broken}, r.Phases[1])
		require.Equal(t, 61*time.Second, r.Took)
	})
	r := report.New("auto")
	r.End(report.Broken, []string{"x"})
	require.Equal(t, "before the first phase", r.Phases[0].Name)
	r = report.New("auto")
	r.End(report.OK, nil)
	require.Empty(t, r.Phases)
	r = report.New("auto")
	r.Add("upgrade", time.Minute, time.Second, nil)
	r.End(report.Broken, []string{"upgrade took 1m0s"})
	require.Len(t, r.Phases, 1, "it is slow, and nothing else")
}

func TestClean(t *testing.T) {
	r := report.New("auto")
	r.Add("login with hunter2", 0, 0, nil)
	r.Note("password", "hunter2")
	r.Reason = "hunter2"
	r.End(report.Broken, []string{"fly login -p hunter2"})
	r.Clean(func(s string) string { return strings.ReplaceAll(s, "hunter2", "[password]") })
	require.NotContains(t, string(must(json.Marshal(r))), "hunter2")
	require.Equal(t, "fly login -p [password]", r.Failures[0])
}

func TestAll(t *testing.T) {
	ok, broken, known, skipped := report.New("auto"), report.New("bad-input"), report.New("proxy"), report.New("big")
	ok.End(report.OK, nil)
	broken.Group, broken.Evidence, broken.Again = "errors", "artifacts/bad-input", "go test again"
	broken.End(report.Broken, []string{"first line\nsecond line \x1b[31m", "another"})
	known.Reason = "one-download: no proxy yet"
	known.End(report.Known, []string{"downloaded twice"})
	skipped.Reason = "needs 64 GB of memory"
	skipped.End(report.Skipped, nil)
	all := report.All{ok, broken, known, skipped}

	var text, markdown, junit strings.Builder
	require.NoError(t, all.WriteText(&text))
	require.Contains(t, text.String(), "FAILED bad-input\n  first line\n  second line")
	require.Contains(t, text.String(), "evidence: artifacts/bad-input\n  run it again: go test again")
	require.True(t, strings.HasSuffix(text.String(), "4 scenarios, 1 ok, 1 failed, 1 known, 1 skipped\n"), text.String())
	require.NoError(t, all.WriteMarkdown(&markdown))
	require.Less(t, strings.Index(markdown.String(), "## bad-input"), strings.Index(markdown.String(), "## auto"), "failures come first")

	require.NoError(t, all.WriteJUnit(&junit))
	var read struct {
		Suite struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Skipped  int `xml:"skipped,attr"`
			Cases    []struct {
				Class   string `xml:"classname,attr"`
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
				Skipped *struct {
					Message string `xml:"message,attr"`
				} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	require.NoError(t, xml.Unmarshal([]byte(junit.String()), &read), junit.String())
	require.Equal(t, []int{4, 1, 2}, []int{read.Suite.Tests, read.Suite.Failures, read.Suite.Skipped})
	require.Nil(t, read.Suite.Cases[0].Failure)
	require.Equal(t, "e2e.errors", read.Suite.Cases[1].Class)
	require.Equal(t, "first line", read.Suite.Cases[1].Failure.Message)
	require.Contains(t, read.Suite.Cases[1].Failure.Text, "go test again")
	require.Contains(t, read.Suite.Cases[2].Skipped.Message, "no proxy yet")
	require.Equal(t, "needs 64 GB of memory", read.Suite.Cases[3].Skipped.Message)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// What is only too slow is told from what does not work.
func TestSlow(t *testing.T) {
	r := report.New("auto")
	r.Add("upgrade", time.Minute, time.Second, nil)
	require.False(t, r.Slow(), "it has not ended")
	r.End(report.Broken, []string{"upgrade took 1m0s"})
	require.True(t, r.Slow())

	r = report.New("auto")
	r.Add("upgrade", time.Minute, time.Second, nil)
	r.End(report.Broken, []string{"upgrade took 1m0s", "a rule is broken"})
	require.False(t, r.Slow())

	r = report.New("auto")
	r.End(report.OK, nil)
	require.False(t, r.Slow())
}
