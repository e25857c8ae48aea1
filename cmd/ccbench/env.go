package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/step"
)

func newEnvCommand(b backend) *cobra.Command {
	var o environment.Options
	env := &cobra.Command{
		Use:   "env",
		Short: "Bring up, inspect and remove LXD, the Juju controller, and Docker",
		Example: `  ccbench env up
  ccbench env status
  ccbench env down --dry-run`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	addEnvironmentFlags(env.PersistentFlags(), &o)
	for _, name := range []string{"juju-data", "cache"} {
		cobra.CheckErr(cobra.MarkFlagDirname(env.PersistentFlags(), name))
	}
	env.AddCommand(newUpCommand(b, &o), newDockerCommand(b, &o), newStatusCommand(&o), newDoctorCommand(&o), newDownCommand(b, &o))
	return env
}

// addEnvironmentFlags adds the flags that say where the environment is.
func addEnvironmentFlags(flags *pflag.FlagSet, o *environment.Options) {
	flags.StringVar(&o.Controller, "controller", "", "use this controller of yours (default $CCBENCH_CONTROLLER); needs --juju-data")
	flags.StringVar(&o.JujuData, "juju-data", "", "client store that names your controller (default $CCBENCH_JUJU_DATA)")
	addCacheFlag(flags, o)
}

func addCacheFlag(flags *pflag.FlagSet, o *environment.Options) {
	flags.StringVar(&o.CacheDir, "cache", "", "folder for builds and state (default $CCBENCH_CACHE, else ccbench in your cache folder)")
}

// orForeseen adds --dry-run to a command. With it, what the command would do is printed,
// as steps has it, and do is not called.
func orForeseen(b backend, cmd *cobra.Command, o *environment.Options, steps func(*environment.Foresight) []string, do func(*cobra.Command) error) *cobra.Command {
	dryRun := cmd.Flags().Bool("dry-run", false, "print what would be done, by what is seen now, and do nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*dryRun {
			return do(cmd)
		}
		seen, err := b.foresee(cmd.Context(), *o)
		if err != nil {
			return classify(err)
		}
		todo := steps(seen)
		for _, step := range todo {
			fmt.Fprintf(cmd.OutOrStdout(), "would %s\n", step)
		}
		if len(todo) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to do")
		}
		return nil
	}
	return cmd
}

func newUpCommand(b backend, o *environment.Options) *cobra.Command {
	up := &cobra.Command{
		Use:   "up",
		Short: "Bring up what is not up",
		Long: `Bring up LXD, an image for its machines and a Juju controller. What answers is
used as it is; what is left over from before is brought back; the rest is
installed, as snaps where snapd runs, else from packages and built from source
once (25 minutes on two cores, seconds from then on). Before a controller is
started, a container tries the network. Where another package manager runs, its
end is waited for.

A controller of yours is only used when you name it, and there only models
named ` + environment.ModelPrefix + `* are made.`,
		Example: `  ccbench env up
  ccbench env up --dry-run
  ccbench env up --controller lab --juju-data ~/.local/share/juju`,
		Args: cobra.NoArgs,
	}
	return orForeseen(b, up, o, (*environment.Foresight).Up, func(cmd *cobra.Command) error {
		return withProgress(cmd, o, func(ctx context.Context) error {
			env, err := b.up(ctx, *o)
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "controller\t%s\nJUJU_DATA\t%s\njuju\t%s\nLXD\t%s\npool\t%s\nbridge\t%s (%s)\n",
				env.Controller, env.JujuData, env.JujuBinary, env.LXDSocket, env.Pool, env.Bridge, env.BridgeAddress)
			return w.Flush()
		})
	})
}

func newDockerCommand(b backend, o *environment.Options) *cobra.Command {
	docker := &cobra.Command{
		Use:   "docker",
		Short: "Bring up Docker, in which tests run a PostgreSQL",
		Long: `Bring up Docker, in which tests run a PostgreSQL; scenarios need none. One that
answers is used as it is. Else it is installed from packages and started: by
systemd, or by hand where that is missing, and then without a bridge and rules
of its own. What was started by hand is removed by ` + "`ccbench env down`" + `.`,
		Example: `  ccbench env docker
  ccbench env docker --dry-run`,
		Args: cobra.NoArgs,
	}
	return orForeseen(b, docker, o, (*environment.Foresight).Docker, func(cmd *cobra.Command) error {
		return withProgress(cmd, o, func(ctx context.Context) error { return b.docker(ctx, *o) })
	})
}

func newDownCommand(b backend, o *environment.Options) *cobra.Command {
	var purge bool
	down := &cobra.Command{
		Use:   "down",
		Short: "Remove what up and docker made, and nothing else",
		Long: `Remove the controller with its models, the machine image, and the pool, the
bridge, the LXD daemon and the Docker daemon if they were made here. Packages stay
installed. Builds stay cached, so that the next up takes a minute.`,
		Example: `  ccbench env down
  ccbench env down --purge --dry-run    # what would go, the cached builds too`,
		Args: cobra.NoArgs,
	}
	down.Flags().BoolVar(&purge, "purge", false, "remove the cached builds too")
	return orForeseen(b, down, o, func(f *environment.Foresight) []string { return f.Down(purge) }, func(cmd *cobra.Command) error {
		return withProgress(cmd, o, func(ctx context.Context) error { return b.down(ctx, *o, purge) })
	})
}

// withProgress runs do with progress on standard error: bars on a terminal,
// plain lines elsewhere.
func withProgress(cmd *cobra.Command, o *environment.Options, do func(context.Context) error) error {
	stderr, isFile := cmd.ErrOrStderr().(*os.File)
	terminal := isFile && term.IsTerminal(int(stderr.Fd())) && os.Getenv("CI") == ""
	o.Report = step.NewReporter(cmd.ErrOrStderr(), terminal, time.Now)
	err := do(cmd.Context())
	o.Report.Close()
	return classify(err)
}

// classify tells a wrong call from a failure of a right one.
func classify(err error) error {
	if err == nil || errors.Is(err, environment.ErrOptions) {
		return err
	}
	return failed(err)
}

func newStatusCommand(o *environment.Options) *cobra.Command {
	var asJSON bool
	status := &cobra.Command{
		Use:   "status",
		Short: "Tell what is up",
		Long:  "Tell what is up, changing nothing. The exit code is 1 when a suite could not run.",
		Example: `  ccbench env status
  ccbench env status --json | jq .controller.models`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := environment.Look(cmd.Context(), *o)
			if err != nil {
				return classify(err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), s)
			} else {
				err = printStatus(cmd.OutOrStdout(), s)
			}
			if err == nil && !s.Up {
				err = environment.ErrDown
			}
			return classify(err)
		},
	}
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return status
}

func printStatus(out io.Writer, s *environment.Status) error {
	up := map[bool]string{true: "up", false: "down"}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	detail := func(format string, args ...any) { fmt.Fprintf(w, "\t\t"+format+"\n", args...) }
	fmt.Fprintf(w, "LXD\t%s\t%s\n", up[s.LXD.Up], strings.TrimSpace(s.LXD.Version+" "+s.LXD.Socket))
	if s.LXD.Up {
		detail("pool %s, bridge %s %s, %d containers running", s.LXD.Pool, s.LXD.Bridge, s.LXD.Address, s.LXD.Containers)
		fmt.Fprintf(w, "image\t%s\t%s\n", map[bool]string{true: "up", false: "missing"}[s.Image.Present], s.Image.Alias)
	} else {
		detail("%s", s.LXD.Problem)
	}
	fmt.Fprintf(w, "controller\t%s\t%s in %s\n", up[s.Controller.Up], s.Controller.Name, s.Controller.JujuData)
	if s.Controller.Up {
		detail("models %s", strings.Join(s.Controller.Models, ", "))
	} else {
		detail("%s", s.Controller.Problem)
	}
	fmt.Fprintf(w, "cache\t%s\t%s\n", step.Bytes(s.Cache.Bytes), s.Cache.Dir)
	return w.Flush()
}

func newDoctorCommand(o *environment.Options) *cobra.Command {
	var asJSON bool
	doctor := &cobra.Command{
		Use:   "doctor",
		Short: "Check what up needs and name the remedies",
		Long: `Check each precondition of ` + "`ccbench env up`" + `, and name the firewall that stands in
the way of LXD's bridge. Where LXD and an image are there, a container tries the
network: it gets an address, resolves a name and reaches this machine; it is
removed. Nothing else is changed. The exit code is 1 when something is not met.`,
		Example: `  ccbench env doctor
  ccbench env doctor --json | jq '.[] | select(.ok | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := environment.Doctor(cmd.Context(), *o)
			if err != nil {
				return classify(err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), checks)
			} else {
				err = printChecks(cmd.OutOrStdout(), checks)
			}
			failed := 0
			for _, c := range checks {
				if !c.OK && !c.Advice {
					failed++
				}
			}
			if err == nil && failed > 0 {
				err = fmt.Errorf("%d preconditions are not met", failed)
			}
			return classify(err)
		},
	}
	doctor.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return doctor
}

func printChecks(out io.Writer, checks []environment.Check) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		word := "ok"
		switch {
		case c.Advice:
			word = "advice"
		case !c.OK:
			word = "FAILED"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", word, c.Name, c.Found)
		if c.Remedy != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", c.Remedy)
		}
	}
	return w.Flush()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // people read it, too: a threshold has a <
	return e.Encode(v)
}
