package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/step"
)

// deployed are the releases that the suite deploys.
var deployed = []string{release.Old, release.From, release.To}

func newReleasesCommand() *cobra.Command {
	var o environment.Options
	cmd := &cobra.Command{
		Use:   "releases [VERSION]...",
		Short: "Build Concourse releases into the cache",
		Long: `Build Concourse releases from source into the cache, where the suite and the
mirror look for them, and print their paths. The first takes minutes, one that is
there no time. Without a VERSION it builds those that the suite deploys. It needs
neither LXD nor Juju.`,
		Example: `  ccbench releases
  ccbench releases 7.14.4`,
		ValidArgs: deployed,
		RunE: func(cmd *cobra.Command, versions []string) error {
			if len(versions) == 0 {
				versions = deployed
			}
			if err := checkVersions(versions); err != nil {
				return err
			}
			return withProgress(cmd, &o, func(ctx context.Context) error {
				look, err := environment.Look(ctx, o)
				if err != nil {
					return err
				}
				archives, err := provideReleases(ctx, o, look.Cache.Dir, versions)
				for _, path := range archives {
					fmt.Fprintln(cmd.OutOrStdout(), path)
				}
				return err
			})
		},
	}
	addCacheFlag(cmd.Flags(), &o)
	completeDirectory(cmd, "cache")
	return cmd
}

func checkVersions(versions []string) error {
	for _, v := range versions {
		if err := release.CheckVersion(v); err != nil {
			return err
		}
	}
	return nil
}

// provideReleases builds what is not in the cache, and returns the archives' paths.
func provideReleases(ctx context.Context, o environment.Options, cacheDir string, versions []string) (archives []string, err error) {
	for _, v := range versions {
		err := o.Report.Run(ctx, "provide Concourse "+v, func(ctx context.Context, s *step.Step) error {
			a, err := release.Build(ctx, filepath.Join(cacheDir, "releases"), v, func(part string) { o.Report.Say("%s", part) })
			archives = append(archives, a.Path)
			s.Size(a.Size)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return archives, nil
}
