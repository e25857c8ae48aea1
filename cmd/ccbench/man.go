package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newManCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write a manual page of each command into a directory",
		Example: `  ccbench man /usr/local/share/man/man1
  ccbench man . && man ./ccbench-run.1`,
		Hidden:            true,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: directories,
		RunE: func(_ *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil || !info.IsDir() {
				return fmt.Errorf("%s is no directory", args[0])
			}
			return failed(doc.GenManTree(root, &doc.GenManHeader{Source: "ccbench", Manual: "Concourse CI machine charm"}, args[0]))
		},
	}
}
