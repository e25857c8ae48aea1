package main

import (
	"context"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// backend is what commands act upon. Tests have one that cannot touch a machine.
type backend struct {
	// What changes this machine.
	up     func(context.Context, environment.Options) (*environment.Environment, error)
	docker func(context.Context, environment.Options) error
	down   func(ctx context.Context, o environment.Options, purge bool) error
	// What looks at it.
	foresee func(context.Context, environment.Options) (*environment.Foresight, error)
	// What can be run, and where.
	scenarios []suite.Scenario
	host      func(context.Context, environment.Options, suite.JujuOptions) (suite.Host, error)
}

// real acts upon this machine.
var real = backend{
	up:        environment.Up,
	docker:    environment.UpDocker,
	down:      environment.Down,
	foresee:   environment.Foresee,
	scenarios: suite.All(),
	host: func(ctx context.Context, o environment.Options, j suite.JujuOptions) (suite.Host, error) {
		env, err := environment.Find(ctx, o)
		if err != nil {
			return nil, err
		}
		return suite.NewJuju(env, j), nil
	},
}
