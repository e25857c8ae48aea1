package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/mirror"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
)

// mirrored are the releases that the suite upgrades from and to.
var mirrored = []string{release.From, release.To}

func newMirrorCommand() *cobra.Command {
	var o environment.Options
	var listen, ledger string
	cmd := &cobra.Command{
		Use:   "mirror [VERSION]...",
		Short: "Serve Concourse releases to the machines, without internet",
		Long: `Serve Concourse releases under GitHub's paths until interrupted, and say at the
end what was sent. A release that is not in the cache is built from Concourse's
source with that version stamped: the first takes minutes, more take seconds.
Without a VERSION it serves those that the suite upgrades between.`,
		Example: `  ccbench mirror
  ccbench mirror 7.14.3 --ledger ledger.jsonl
  juju config concourse-ci release-url=http://10.0.3.1:8090/concourse/concourse`,
		ValidArgs: mirrored,
		RunE: func(cmd *cobra.Command, versions []string) error {
			if len(versions) == 0 {
				versions = mirrored
			}
			if err := checkVersions(versions); err != nil {
				return err
			}
			return withProgress(cmd, &o, func(ctx context.Context) error {
				return serveMirror(ctx, o, listen, ledger, versions, cmd.OutOrStdout())
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "address to serve at (default port 8090 of LXD's bridge)")
	cmd.Flags().StringVar(&ledger, "ledger", "", "append every request to this file, as lines of JSON")
	addCacheFlag(cmd.Flags(), &o)
	completeDirectory(cmd, "cache")
	completeFile(cmd, "ledger", "jsonl")
	return cmd
}

// serveMirror serves until ctx ends, which is the ordinary end.
func serveMirror(ctx context.Context, o environment.Options, listen, ledger string, versions []string, out io.Writer) error {
	look, err := environment.Look(ctx, o)
	if err != nil {
		return err
	}
	if listen == "" {
		if look.LXD.Address == "" {
			return fmt.Errorf("LXD has no bridge to serve at: run `ccbench env up`, or name an address with --listen")
		}
		listen = net.JoinHostPort(look.LXD.Address, "8090")
	}
	archives, err := provideReleases(ctx, o, look.Cache.Dir, versions)
	if err != nil {
		return err
	}
	m, err := mirror.Options{Addr: listen, Archives: archives, LedgerFile: ledger}.Start()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "release-url=%s\n", m.URL())
	<-ctx.Done()
	sent := m.Ledger()
	for _, v := range versions {
		if len(sent.Downloads(v)) > 0 {
			fmt.Fprintf(out, "%s: %s\n", v, sent.Transfer(v))
		}
	}
	return m.Close()
}
