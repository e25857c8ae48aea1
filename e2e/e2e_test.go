// Package e2e runs the scenarios on a real Juju and LXD.
//
// It needs what `ccbench env up` makes. Where that is missing, and with -short, the
// scenarios are skipped and say so. Environment variables change what they do:
//
//	E2E_REQUIRE=juju   run every scenario, also with -short, and fail where what it
//	                   needs is missing; no other value is known
//	E2E_KEEP=1         keep the model and the volume of every test
//	E2E_POSTGRESQL_CHANNEL=16/stable
//	                   use Charmhub's PostgreSQL instead of the suite's own
//	E2E_ARTIFACTS=DIR  where evidence and reports go; the default is artifacts/
//	                   in the repository, or with -artifacts go test's own place
//
// The last five minutes of go test's -timeout, or the last fifth if it is below 25
// minutes, are kept: a scenario that still runs then fails, evidence is taken and
// its model destroyed. -timeout 0 sets no limit.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/pack"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/mirror"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/postgresql"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

const (
	fromVersion = "7.14.2"
	toVersion   = "7.14.3"
)

func TestAuto(t *testing.T) { play(t, "auto", "", scenarios.Auto) }

func TestBadInput(t *testing.T) {
	play(t, "bad input", scenarios.BadInputVolume, scenarios.BadInput)
}

// play runs a scenario on a cluster of its own, reports, and on failure saves
// evidence before anything is destroyed.
func play(t *testing.T, name, volumeSize string, scenario func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs)) {
	env := find(t.Context(), t)
	schedule := scheduleOf(t)
	ctx := schedule.begin(t)
	report := cluster.NewReport(name)
	dir := artifacts(t)
	published := sync.OnceFunc(func() { publish(t, report, dir) })
	t.Cleanup(published)

	in := scenarios.Inputs{Report: report}
	var from, to release.Archive
	require.NoError(t, report.Time("releases built, charms packed", 0, func() error {
		var err error
		if from, err = release.Build(ctx, filepath.Join(env.CacheDir, "releases"), fromVersion, func(s string) { t.Log(s) }); err != nil {
			return err
		}
		if to, err = release.Build(ctx, filepath.Join(env.CacheDir, "releases"), toVersion, func(s string) { t.Log(s) }); err != nil {
			return err
		}
		if in.From, err = unpacked(from, t.TempDir()); err != nil {
			return err
		}
		if in.To, err = unpacked(to, t.TempDir()); err != nil {
			return err
		}
		charms := t.TempDir()
		in.Charm = filepath.Join(charms, "concourse-ci-machine_amd64.charm")
		in.Database = cluster.App{Name: "postgresql", Charm: "ch:postgresql", Channel: os.Getenv("E2E_POSTGRESQL_CHANNEL"), Units: 1}
		err = pack.Charm(ctx, pack.Spec{
			Dir:  "../charm",
			Main: "github.com/concourse-ci-machine/concourse-ci-machine/charm/cmd/dispatch",
			Out:  in.Charm,
		})
		if err != nil {
			return err
		}
		if in.Database.Channel != "" {
			return nil
		}
		in.Database.Charm = filepath.Join(charms, "postgresql.charm")
		return postgresql.Pack(ctx, in.Database.Charm)
	}))

	m, err := mirror.Start(net.JoinHostPort(env.BridgeAddress, "0"), from.Path, to.Path)
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	in.Mirror = source{m}

	config := map[string]any{}
	if env.OwnController {
		// Its machine image is in LXD. Juju would look for others on the internet
		// first, which takes seconds where there is none, and was once seen to take
		// machines for not yet started meanwhile, and to start them again.
		config["image-metadata-defaults-disabled"] = true
	}
	var c *juju.Cluster
	require.NoError(t, report.Time("model and volume made", 0, func() error {
		var err error
		c, err = juju.New(ctx, juju.Options{
			JujuData:   env.JujuData,
			Controller: env.Controller,
			LXDSocket:  env.LXDSocket,
			Pool:       env.Pool,
			VolumeSize: volumeSize,
			Config:     config,
		})
		return err
	}))
	t.Logf("model %s on controller %s", c.Name(), env.Controller)
	schedule.attend(ctx, t, func(ctx context.Context, failed bool) {
		defer published()
		if failed {
			collect(ctx, t, c, m, dir)
		}
		if os.Getenv("E2E_KEEP") != "" {
			t.Logf("kept, as E2E_KEEP says: JUJU_DATA=%s %s status -m %s", env.JujuData, env.JujuBinary, c.Name())
			return
		}
		start := time.Now()
		if err := c.Destroy(ctx); err != nil {
			t.Errorf("cannot clean up: %v", err)
		}
		t.Logf("model %s destroyed in %s", c.Name(), time.Since(start).Round(100*time.Millisecond))
	})
	scenario(ctx, t, c, in)
}

// find returns the environment, or ends the test as decide says.
func find(ctx context.Context, t *testing.T) *environment.Environment {
	var env *environment.Environment
	required := os.Getenv("E2E_REQUIRE")
	what, why := decide(testing.Short(), required, nil)
	if what == run { // only then is there a need to look
		var err error
		env, err = environment.Find(ctx, environment.Options{})
		what, why = decide(testing.Short(), required, err)
	}
	switch what {
	case skip:
		t.Skip(why)
	case fail:
		t.Fatal(why)
	}
	return env
}

// artifacts returns the directory for what a test leaves behind.
func artifacts(t *testing.T) string {
	base := os.Getenv("E2E_ARTIFACTS")
	switch {
	case base != "":
	case flag.Lookup("test.artifacts").Value.String() == "true":
		return t.ArtifactDir()
	default:
		base = filepath.Join("..", "artifacts")
	}
	dir, err := filepath.Abs(filepath.Join(base, t.Name()))
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(dir), "old artifacts")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

// collect saves what tells why a test failed, and says how to run it again. It
// takes at most half of the context's time: the rest is for destruction.
func collect(ctx context.Context, t *testing.T, c *juju.Cluster, m *mirror.Mirror, dir string) {
	end, _ := ctx.Deadline()
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/2)
	defer cancel()
	if err := c.Collect(ctx, dir); err != nil {
		t.Logf("not all evidence could be had: %v", err)
	}
	ledger, err := json.MarshalIndent(m.Ledger(), "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ledger.json"), ledger, 0o644)
	}
	if err != nil {
		t.Logf("cannot save the mirror's ledger: %v", err)
	}
	t.Logf("evidence is in %s\nrun this scenario again: E2E_REQUIRE=juju go test ./e2e -count=1 -v -timeout 40m -run '^%s$'\nkeep the model to look around: prefix it with E2E_KEEP=1", dir, t.Name())
}

// publish prints the report and writes it as JSON and as markdown, also into
// the summary of a GitHub job.
func publish(t *testing.T, report *cluster.Report, dir string) {
	if t.Failed() {
		report.Note("result", "failed; what is known is in %s", dir)
	}
	var text, markdown bytes.Buffer
	report.WriteText(&text)
	report.WriteMarkdown(&markdown)
	t.Logf("report\n\n%s", text.String())
	raw, err := json.MarshalIndent(report, "", "  ")
	err = errors.Join(err,
		os.WriteFile(filepath.Join(dir, "report.json"), append(raw, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "report.md"), markdown.Bytes(), 0o644))
	if summary := os.Getenv("GITHUB_STEP_SUMMARY"); summary != "" {
		err = errors.Join(err, appendTo(summary, markdown.Bytes()))
	}
	if err != nil {
		t.Errorf("cannot publish the report: %v", err)
	}
}

func appendTo(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
