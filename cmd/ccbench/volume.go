package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/step"
)

func newVolumeCommand() *cobra.Command {
	volume := &cobra.Command{
		Use:   "volume",
		Short: "Look at the volume that units share, verify it, tidy it up",
		Example: `  ccbench volume certify /mnt/nfs        # before anything is installed
  ccbench volume inspect /var/lib/concourse
  ccbench volume verify /var/lib/concourse`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	volume.AddCommand(newInspectCommand(), newProbeCommand(), newCertifyCommand(), newVerifyCommand(), newCollectCommand())
	return volume
}

func newInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect PATH",
		Short: "Tell what is on a volume, changing nothing",
		Long: `Tell which releases are on the volume, which one is current, who runs what, who
downloads, and what takes room. Nothing on the volume is changed, units may be at
work on it, and a copy of a volume will do. Files are looked at, not read: for
that see verify. The exit code is 1 when a release is damaged.`,
		Example: `  ccbench volume inspect /var/lib/concourse
  ccbench volume inspect /var/lib/concourse --json | jq .pins`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, i, err := inspect(cmd.Context(), args[0])
			if err != nil {
				return failed(err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), i)
			} else {
				err = printInspection(cmd.OutOrStdout(), i)
			}
			if err == nil && len(i.Damaged) > 0 {
				err = fmt.Errorf("%d things are damaged: a release is installed again by the next unit that is told to run it", len(i.Damaged))
			}
			if err != nil {
				return failed(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// inspect describes the volume at a directory, changing nothing.
func inspect(ctx context.Context, dir string) (*coordinator.View, coordinator.Inspection, error) {
	v, err := coordinator.Look(ctx, dir, product.Concourse)
	if err != nil {
		return nil, coordinator.Inspection{}, err
	}
	i, err := v.Inspect(ctx)
	return v, i, err
}

func printInspection(out io.Writer, i coordinator.Inspection) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	shared := "shared"
	if _, err := os.Stat(filepath.Join(i.Root, product.Marker)); err != nil {
		shared = "not marked as shared: no " + product.Marker
	}
	fmt.Fprintf(w, "volume\t%s\t%s\n", i.VolumeID, shared)
	if i.Owner != "" {
		fmt.Fprintf(w, "owner\t%s\n", i.Owner)
	}
	name := func(a *coordinator.Activation) string {
		if a == nil {
			return "none"
		}
		return fmt.Sprintf("%s\tactivated by %s as number %d", a.Version, a.Unit, a.Generation)
	}
	fmt.Fprintf(w, "current\t%s\n", name(i.Current))
	fmt.Fprintf(w, "previous\t%s\n", name(i.Previous))
	if len(i.Claims) == 0 {
		fmt.Fprintf(w, "claim\tfree\n")
	}
	for _, c := range i.Claims {
		fmt.Fprintf(w, "claim\t%s\tnumber %d for %s, since %s by its clock, process %d\n",
			c.Unit, c.Generation, c.Version, c.Since.Format(time.RFC3339), c.PID)
	}
	if p := i.Progress; p != nil {
		fmt.Fprintf(w, "download\t%s\t%s of %s, by %s\n", p.Version, step.Bytes(p.Bytes), step.Bytes(p.Total), p.Unit)
	}
	fmt.Fprintf(w, "disk\t%s free\treleases %s, staging %s, worker %s\n", step.Bytes(int64(i.Free)),
		step.Bytes(int64(i.Use.Store)), step.Bytes(int64(i.Use.Staging)), step.Bytes(int64(i.Use.Worker)))
	for _, r := range i.Releases {
		fmt.Fprintf(w, "release\t%s\tok, %s, installed by %s%s\n", r.Version, step.Bytes(r.Bytes), r.InstalledBy, pinned(i.Pins, filepath.Base(r.Dir)))
	}
	for _, v := range slices.Sorted(maps.Keys(i.Damaged)) {
		fmt.Fprintf(w, "damaged\t%s\t%s\n", v, i.Damaged[v])
	}
	for _, entry := range i.Replaced {
		fmt.Fprintf(w, "replaced\t%s\tremoved by collect%s\n", entry, pinned(i.Pins, entry))
	}
	for _, v := range slices.Sorted(maps.Keys(i.Failures)) {
		fmt.Fprintf(w, "failed\t%s\t%s\n", v, i.Failures[v])
	}
	by := map[string][]string{} // units, by what they found
	for _, unit := range slices.Sorted(maps.Keys(i.Probes)) {
		found := i.Probes[unit].String()
		by[found] = append(by[found], unit)
	}
	for _, found := range slices.Sorted(maps.Keys(by)) {
		fmt.Fprintf(w, "mount\tprobed\t%s, by %s\n", found, strings.Join(by[found], " "))
	}
	return w.Flush()
}

func newProbeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "probe PATH",
		Short: "Try out what the mount of a volume can do: locks, links, renames, syncing",
		Long: `Try out, in a directory that is removed again and for 2 seconds at most, what the
mount of a volume can do. Installing needs link and rename; all the rest only
makes it faster. Units probe their own mounts: see inspect. The exit code is 1
when what is needed is missing.`,
		Example: `  ccbench volume probe /var/lib/concourse
  ccbench volume probe /var/lib/concourse --json | jq .locks`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			executable, err := os.Executable()
			if err != nil {
				return failed(err)
			}
			r, err := coordinator.Probe(cmd.Context(), args[0], executable, helpCommand)
			if err != nil {
				return failed(err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = printProbe(cmd.OutOrStdout(), r)
			}
			if err == nil && !r.Sound() {
				err = errors.New("nothing can be installed here: it must be writable, and link, rename, modes, execute and symlink must work")
			}
			if err != nil {
				return failed(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printProbe(out io.Writer, r probe.Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "volume\t%s\nlocks\t%s\nlink\t%s\nrename\t%s\nmodes\t%s\nexecute\t%s\nsymlink\t%s\nsync of directories\t%s\n",
		r.Volume, r.Locks, r.Link, r.Rename, r.Modes, r.Execute, r.Symlink, r.SyncDir)
	for _, note := range r.Notes {
		fmt.Fprintf(w, "note\t%s\n", note)
	}
	return w.Flush()
}

// helpCommand is what probe runs in another process, which may hang.
const helpCommand = "probe-help"

func newProbeHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use: helpCommand, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := probe.Help(args[0], cmd.OutOrStdout()); err != nil {
				return failed(err)
			}
			return nil
		},
	}
}

// pinned names the units that run an entry of the store.
func pinned(pins map[string]string, entry string) string {
	var units []string
	for _, unit := range slices.Sorted(maps.Keys(pins)) {
		if pins[unit] == entry {
			units = append(units, unit)
		}
	}
	if len(units) == 0 {
		return ""
	}
	return ", run by " + strings.Join(units, " ")
}

// verified is what verify prints of one release as JSON.
type verified struct {
	Version string `json:"version"`
	OK      bool   `json:"ok"`
	Error   string `json:"error,omitempty"`
	Damaged any    `json:"damaged,omitempty"` // file by file
}

func newVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify PATH [VERSION]...",
		Short: "Read every file of the releases on a volume and compare it with its digest",
		Long: `Read every file of the releases, of all or of those named, and compare it with
the digest it was installed with. Nothing on the volume is changed. The exit code
is 1, and the files are named, when one differs.`,
		Example: `  ccbench volume verify /var/lib/concourse
  ccbench volume verify /var/lib/concourse 7.14.3 --json`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, versions := args[0], args[1:]
			view, i, err := inspect(cmd.Context(), root)
			if err != nil {
				return failed(err)
			}
			if len(versions) == 0 {
				for _, r := range i.Releases {
					versions = append(versions, r.Version)
				}
				for _, v := range slices.Sorted(maps.Keys(i.Damaged)) {
					if _, err := product.ParseVersion(v); err == nil {
						versions = append(versions, v)
					}
				}
			}
			results := []verified{}
			var bad []string
			for _, v := range versions {
				if v, err = product.ParseVersion(v); err != nil {
					return err
				}
				result := verified{Version: v, OK: true}
				err := view.Verify(cmd.Context(), v, followed(cmd.ErrOrStderr(), v))
				if cmd.Context().Err() != nil {
					return failed(err)
				}
				if err != nil {
					bad = append(bad, v)
					result.OK, result.Error = false, err.Error()
				}
				var damage *coordinator.Damage
				if errors.As(err, &damage) {
					result.Damaged = damage.Files
				}
				results = append(results, result)
				if asJSON {
					continue
				}
				switch {
				case damage != nil:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %d files damaged\n", v, len(damage.Files))
					for _, f := range damage.Files {
						fmt.Fprintf(cmd.OutOrStdout(), "  %s\n", f)
					}
				case err != nil:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", v, err)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", v)
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), results); err != nil {
					return failed(err)
				}
			}
			if len(bad) > 0 {
				return failed(fmt.Errorf("%s cannot be trusted: to have one installed again by the next unit that is told to run it, remove its link: rm %s",
					strings.Join(bad, ", "), filepath.Join(i.Root, "releases", bad[0])))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// followed prints how far a verification is, every other second: a large
// release on a slow volume takes minutes.
func followed(out io.Writer, version string) func(done, total int64) {
	said := time.Now()
	return func(done, total int64) {
		if time.Since(said) < 2*time.Second {
			return
		}
		said = time.Now()
		fmt.Fprintf(out, "%s: %s of %s\n", version, step.Bytes(done), step.Bytes(total))
	}
}

func newCollectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "collect PATH",
		Short: "Remove the releases and leftovers that no unit needs",
		Long: `Remove what is neither current, previous, run by a unit nor just installed, and
what broken downloads left. Of a version that a unit downloads nothing is removed.`,
		Example:           `  ccbench volume collect /var/lib/concourse`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			// Open would make a volume of any directory.
			_, i, err := inspect(cmd.Context(), args[0])
			if err != nil {
				return failed(err)
			}
			c, err := coordinator.Open(cmd.Context(), i.Root, coordinator.Options{Unit: "ccbench", Product: product.Concourse, VolumeID: i.VolumeID})
			if err != nil {
				return failed(err)
			}
			removed, err := c.Collect(cmd.Context())
			if errors.Is(err, coordinator.ErrHeld) {
				return failed(fmt.Errorf("not all was removed, because a unit downloads: try again when `ccbench volume inspect %s` shows that the claim is free: %w", i.Root, err))
			}
			if asJSON {
				if removed == nil {
					removed = []string{}
				}
				err = errors.Join(err, printJSON(cmd.OutOrStdout(), removed))
			} else {
				for _, name := range removed {
					fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", name)
				}
				if len(removed) == 0 && err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove")
				}
			}
			if err != nil {
				return failed(err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
