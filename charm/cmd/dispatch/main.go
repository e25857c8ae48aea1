// Dispatch is the charm's one program. Juju runs it for every hook and action;
// with the argument supervise it is the service that does the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

var machine = concourse.Machine{Units: "/etc/systemd/system"}

func main() {
	paths := concourse.Paths{Volume: "/var/lib/concourse", State: "/var/lib/concourse-ci-machine"}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Files get their modes at creation; nothing may widen or narrow them.
	syscall.Umask(0o022)

	executable, err := os.Executable()
	switch {
	case err != nil:
	case len(os.Args) == 3 && os.Args[1] == "supervise":
		err = supervise(ctx, paths, executable, os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "probe": // by the supervisor
		err = probe.Help(os.Args[2], os.Stdout)
	case os.Getenv("JUJU_DISPATCH_PATH") != "":
		err = dispatch(ctx, paths, executable)
	default:
		fmt.Fprintln(os.Stderr, "usage: dispatch supervise UNIT; without arguments, Juju runs it with JUJU_DISPATCH_PATH set")
		os.Exit(2)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "concourse-ci-machine:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, paths concourse.Paths, executable string) error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	return charm{
		paths: paths, system: machine, hostname: hostname, hosts: "/etc/hosts", executable: executable,
		agents: "/var/lib/juju/agents", patience: defaultPatience,
	}.run(ctx)
}

func supervise(ctx context.Context, paths concourse.Paths, executable, unit string) error {
	s := supervisor.Supervisor{
		Paths:  paths,
		System: machine,
		Open: func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			o.Helper = []string{executable, "probe"}
			return coordinator.Open(ctx, root, o)
		},
		Newest:  product.Newest,
		Machine: supervisor.Ubuntu,
		Wake: func(ctx context.Context) error {
			out, err := exec.CommandContext(ctx, "/usr/bin/juju-exec", unit,
				"JUJU_DISPATCH_PATH=hooks/volume-changed ./dispatch").CombinedOutput()
			if err != nil {
				return fmt.Errorf("juju-exec: %s: %w", strings.TrimSpace(string(out)), err)
			}
			return nil
		},
		Client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	s.Defaults()
	return s.Run(ctx)
}
