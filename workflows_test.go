package layout_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// workflow is what these tests read of a file in .github/workflows.
type workflow struct {
	On struct {
		Call struct {
			Inputs map[string]struct{ Default string }
		} `yaml:"workflow_call"`
	}
	Permissions map[string]string
	Jobs        map[string]job
}

type job struct {
	If             string
	Needs          words
	Uses           string
	With           map[string]string
	Steps          []step
	Permissions    map[string]string
	TimeoutMinutes string `yaml:"timeout-minutes"`
}

type step struct {
	Name, ID, If, Uses, Run string
	With, Env               map[string]string
	TimeoutMinutes          string `yaml:"timeout-minutes"`
}

// words is one word or a list of them.
type words []string

func (w *words) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*w = words{node.Value}
		return nil
	}
	return node.Decode((*[]string)(w))
}

// workflows returns all, by the names of their files.
func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	paths, err := filepath.Glob(".github/workflows/*.yml")
	require.NoError(t, err)
	all := map[string]workflow{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		var w workflow
		require.NoError(t, yaml.Unmarshal(text, &w), path)
		all[filepath.Base(path)] = w
	}
	require.Contains(t, all, "ci.yml")
	return all
}

const here = "./.github/workflows/"

// A called job is what a job runs: itself, or each job of the workflow in this repository
// that it uses, with the inputs filled in.
func called(all map[string]workflow, j job) []job {
	if j.Uses == "" {
		return []job{j}
	}
	w := all[strings.TrimPrefix(j.Uses, here)]
	var jobs []job
	for _, c := range w.Jobs {
		fill := func(text string) string {
			return regexp.MustCompile(`\$\{\{ inputs\.([\w-]+) \}\}`).ReplaceAllStringFunc(text, func(use string) string {
				name := strings.Fields(use)[1][len("inputs."):]
				return cmp.Or(j.With[name], w.On.Call.Inputs[name].Default)
			})
		}
		c.TimeoutMinutes = fill(c.TimeoutMinutes)
		c.Steps = slices.Clone(c.Steps)
		for i := range c.Steps {
			s := &c.Steps[i]
			s.TimeoutMinutes, s.Run = fill(s.TimeoutMinutes), fill(s.Run)
			filled := map[string]string{}
			for name, value := range s.Env {
				filled[name] = fill(value)
			}
			s.Env = filled
		}
		jobs = append(jobs, c)
	}
	return jobs
}

func minutes(t *testing.T, text, of string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err, "the limit of %s", of)
	return n
}

// Actions are those of a commit that nobody can move, and say which version that is.
func TestActionsArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`^\s*(- )?uses: (\./\.github/workflows/[\w-]+\.yml|[\w-]+/[\w-]+(/[\w-]+)?@[0-9a-f]{40} # v\d+\.\d+\.\d+)$`)
	versions := map[string]string{}
	for name := range workflows(t) {
		text, err := os.ReadFile(filepath.Join(".github/workflows", name))
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "uses:") {
				continue
			}
			require.Regexp(t, pinned, strings.TrimRight(line, "\n"), name)
			if action, version, found := strings.Cut(strings.TrimSpace(line), "@"); found {
				action = strings.TrimPrefix(action, "- ")
				require.Equal(t, cmp.Or(versions[action], version), version, "%s of two versions", action)
				versions[action] = version
			}
		}
	}
	require.NotEmpty(t, versions)
}

func TestJobsAreLimited(t *testing.T) {
	all := workflows(t)
	for name, w := range all {
		require.NotNil(t, w.Permissions, "%s: nothing is allowed but what a job says", name)
		require.Empty(t, w.Permissions, name)
		for id, j := range w.Jobs {
			of := name + ": " + id
			require.NotNil(t, j.Permissions, "permissions of %s", of)
			for right, value := range j.Permissions {
				if value == "write" {
					require.Equal(t, "publish-charm", id, "%s may write %s", of, right)
				}
			}
			if j.Uses != "" {
				require.Contains(t, all, strings.TrimPrefix(j.Uses, here), of)
				for input := range j.With {
					require.Contains(t, all[strings.TrimPrefix(j.Uses, here)].On.Call.Inputs, input, of)
				}
				continue
			}
			require.NotEmpty(t, j.TimeoutMinutes, "limit of %s", of)
		}
	}
}

// A test that takes too long is ended by go test, whose clean-up takes evidence; if that
// hangs, by its step, after which evidence is uploaded; and only then by its job.
func TestTimeoutsAreStaggered(t *testing.T) {
	makefile := readMakefile(t)
	timeout := regexp.MustCompile(`-timeout (\S+)m\b`)
	all := workflows(t)
	tests := 0
	for name, w := range all {
		for id, caller := range w.Jobs {
			for _, j := range called(all, caller) {
				of := fmt.Sprintf("%s: %s", name, id)
				if strings.Contains(j.TimeoutMinutes, "inputs.") {
					continue // of a workflow that others call: with their inputs
				}
				steps := 0
				for _, s := range j.Steps {
					if s.TimeoutMinutes != "" {
						steps += minutes(t, s.TimeoutMinutes, of)
					}
					for _, target := range made(s.Run) {
						limit := timeout.FindStringSubmatch(makefile[target])
						if limit == nil {
							continue
						}
						if limit[1] == "$(MINUTES)" {
							limit[1] = s.Env["MINUTES"]
						}
						tests++
						require.Less(t, minutes(t, limit[1], of), minutes(t, s.TimeoutMinutes, of+", "+s.Run), of)
					}
				}
				require.Less(t, steps, minutes(t, j.TimeoutMinutes, of), "steps of %s", of)
			}
		}
	}
	require.NotZero(t, tests)
}

// The specification wants all of it below 45 minutes: the limits of jobs that wait for each
// other keep to it, so that a run that takes longer fails.
func TestTheLongestWayIsLimited(t *testing.T) {
	all := workflows(t)
	jobs := all["ci.yml"].Jobs
	var longest func(id string) int
	longest = func(id string) int {
		before, own := 0, 0
		for _, need := range jobs[id].Needs {
			before = max(before, longest(need))
		}
		for _, j := range called(all, jobs[id]) {
			own = max(own, minutes(t, j.TimeoutMinutes, id))
		}
		return before + own
	}
	require.Less(t, longest("required"), 45)
}

// Evidence is uploaded whatever happened, under a name of its own.
func TestEvidenceIsAlwaysUploaded(t *testing.T) {
	all := workflows(t)
	uploads := slices.DeleteFunc(slices.Clone(all["scenarios.yml"].Jobs["scenarios"].Steps), func(s step) bool {
		return !strings.HasPrefix(s.Uses, "actions/upload-artifact@")
	})
	require.Len(t, uploads, 1)
	require.Equal(t, "always()", uploads[0].If)
	require.Equal(t, "evidence-${{ inputs.name }}", uploads[0].With["name"])
	for file, w := range all {
		for id, j := range w.Jobs {
			if j.Uses == here+"scenarios.yml" {
				require.Equal(t, id, strings.TrimSuffix(j.With["name"], "-juju-${{ matrix.juju }}"), file)
			}
		}
	}
}

func TestJobsOfTheSpecification(t *testing.T) {
	all := workflows(t)
	jobs := all["ci.yml"].Jobs
	// Those for mode=worker follow when the charm has it.
	for id, scenario := range map[string]string{
		"test-all-mode":                 "baseline-all",
		"test-auto-mode":                "baseline",
		"test-shared-storage-all":       "all",
		"test-shared-storage-auto":      "auto",
		"test-new-unit-addition":        "add-unit",
		"test-storage-contention":       "contention",
		"test-storage-failure-recovery": "storage-loss",
		"upgrade":                       "upgrade",
		"bad-input":                     "bad-input",
	} {
		require.Contains(t, jobs, id)
		require.Contains(t, strings.Split(jobs[id].With["scenarios"], "|"), scenario, id)
	}
	for file, w := range all {
		for id, j := range w.Jobs {
			if j.Uses != here+"scenarios.yml" {
				continue
			}
			require.Contains(t, j.Needs, "build-charm", "%s: %s", file, id)
			for _, name := range strings.Split(j.With["scenarios"], "|") {
				known := slices.ContainsFunc(suite.All(), func(sc suite.Scenario) bool { return sc.Name == name })
				require.True(t, known || name == ".*", "%s: %s: no scenario is named %s", file, id, name)
			}
		}
	}
}

// What scenarios deploy, and what is published, is what build-charm has built.
func TestThePublishedCharmIsTheTestedOne(t *testing.T) {
	all := workflows(t)
	artifact := func(j job, action string) string {
		for _, s := range j.Steps {
			if strings.HasPrefix(s.Uses, action) && strings.HasSuffix(s.With["name"], "-charm") {
				return s.With["name"]
			}
		}
		return ""
	}
	jobs := all["ci.yml"].Jobs
	const charm = "concourse-ci-machine-charm"
	require.Equal(t, charm, artifact(jobs["build-charm"], "actions/upload-artifact@"))
	require.Equal(t, charm, artifact(all["scenarios.yml"].Jobs["scenarios"], "actions/download-artifact@"))
	publish := jobs["publish-charm"]
	require.Equal(t, charm, artifact(publish, "actions/download-artifact@"))
	require.Equal(t, words{"required"}, publish.Needs)
	require.Equal(t, "github.event_name == 'push' && github.ref == 'refs/heads/main'", publish.If)
	for _, j := range all["scenarios.yml"].Jobs {
		for _, s := range j.Steps {
			if slices.Contains(made(s.Run), "e2e") {
				require.Equal(t, "concourse-ci-machine_amd64.charm", s.Env["E2E_CHARM"])
			}
		}
	}
}

// One job stands for all: it needs each, and passes only if each has succeeded.
func TestOneJobStandsForAll(t *testing.T) {
	jobs := workflows(t)["ci.yml"].Jobs
	required := jobs["required"]
	require.Equal(t, "always()", required.If, "a job that is skipped counts as passed")
	for id := range jobs {
		if id != "required" && id != "publish-charm" {
			require.Contains(t, required.Needs, id)
		}
	}
	require.Len(t, required.Steps, 1)
	verdict := required.Steps[0]
	require.Equal(t, map[string]string{"RESULTS": "${{ join(needs.*.result, ' ') }}"}, verdict.Env)
	for results, passes := range map[string]bool{
		"success":                   true,
		"success success":           true,
		"success failure success":   false,
		"skipped success":           false,
		"success cancelled success": false,
		"":                          false,
	} {
		cmd := exec.Command("bash", "-e", "-c", verdict.Run)
		cmd.Env = append(os.Environ(), "RESULTS="+results)
		out, err := cmd.CombinedOutput()
		require.Equal(t, passes, err == nil, "%q: %s", results, out)
	}
}

// Workflows run what a developer can run: targets of the Makefile.
func TestWorkflowsRunTargets(t *testing.T) {
	makefile := readMakefile(t)
	seen := 0
	for name, w := range workflows(t) {
		for id, j := range w.Jobs {
			for _, s := range j.Steps {
				for _, target := range made(s.Run) {
					seen++
					require.Contains(t, makefile, target, "%s: %s", name, id)
				}
				require.NotContains(t, s.Run, "${{", "%s: %s: an expression in a script is a way in: use env", name, id)
			}
		}
	}
	require.NotZero(t, seen)
}

// made returns the targets that a script makes.
func made(script string) (targets []string) {
	for _, m := range regexp.MustCompile(`(?m)\bmake ([a-z0-9]+)`).FindAllStringSubmatch(script, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// readMakefile returns the recipes by their targets.
func readMakefile(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("Makefile")
	require.NoError(t, err)
	recipes := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9]+):.*\n((?:\t.*\n)+)`).FindAllStringSubmatch(string(text), -1) {
		recipes[m[1]] = m[2]
	}
	return recipes
}
