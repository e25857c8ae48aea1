// Dispatch is the charm's one program. Juju runs it for every hook and action;
// with the argument watch it is the service that watches the volume.
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

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/hook"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

func main() {
	paths := concourse.Paths{Volume: "/var/lib/concourse", State: "/var/lib/concourse-ci-machine"}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Files get their modes at creation; nothing may widen or narrow them.
	syscall.Umask(0o022)

	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "watch":
		err = watch(ctx, paths)
	case len(os.Args) == 3 && os.Args[1] == "probe": // by the watcher
		err = probe.Help(os.Args[2], os.Stdout)
	case os.Getenv("JUJU_DISPATCH_PATH") != "":
		err = dispatch(ctx, paths)
	default:
		fmt.Fprintln(os.Stderr, "usage: dispatch watch; without arguments, Juju runs it with JUJU_DISPATCH_PATH set")
		os.Exit(2)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "concourse-ci-machine:", err)
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, paths concourse.Paths) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	return hook.Charm{
		Paths:  paths,
		System: concourse.Machine{Units: "/etc/systemd/system"},
		Open: func(ctx context.Context, root string, o coordinator.Options) (hook.Volume, error) {
			return coordinator.Open(ctx, root, o)
		},
		Address:    address,
		Hostname:   hostname,
		Executable: executable,
	}.Run(ctx)
}

// address is where peers reach this unit.
func address() (string, error) {
	network, err := goops.GetNetwork(relations.PeersEndpoint)
	if err != nil {
		return "", err
	}
	if len(network.IngressAddresses) == 0 {
		return "", errors.New("the peer relation has no address yet")
	}
	return network.IngressAddresses[0], nil
}

func watch(ctx context.Context, paths concourse.Paths) error {
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	w := watcher.Watcher{
		Files: watcher.Files(paths.State),
		Open: func(ctx context.Context, root string, o coordinator.Options) (watcher.Volume, error) {
			o.Helper = []string{executable, "probe"}
			return coordinator.Open(ctx, root, o)
		},
		Newest: product.Newest,
		Client: &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	w.Wake = func(ctx context.Context) error {
		want, err := w.Files.Want()
		if err != nil {
			return err
		}
		out, err := exec.CommandContext(ctx, "/usr/bin/juju-exec", want.Unit,
			"JUJU_DISPATCH_PATH=hooks/volume-changed ./dispatch").CombinedOutput()
		if err != nil {
			return fmt.Errorf("juju-exec: %s: %w", strings.TrimSpace(string(out)), err)
		}
		return nil
	}
	w.Defaults()
	return w.Run(ctx)
}
