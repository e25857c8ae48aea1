// Pack packs a machine charm written in Go: go run ./charm/cmd/pack.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/pack"
)

func main() {
	var s pack.Spec
	flag.StringVar(&s.Dir, "dir", "charm", "`directory` that holds metadata.yaml")
	flag.StringVar(&s.Main, "main", "./charm/cmd/dispatch", "Go main `package` that becomes dispatch")
	flag.StringVar(&s.Out, "o", "concourse-ci-machine_amd64.charm", "`file` to write")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unexpected argument: %s\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := pack.Charm(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
	fmt.Println(s.Out)
}
