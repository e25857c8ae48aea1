package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// A condition of one's own says what is missing. The mark is read before the change.
func ExampleWait() {
	ctx := context.Background()
	c := &script{readings: []any{
		units("active Ready (v7.14.2)"), // The mark.
		units("active Ready (v7.14.2)"), units("maintenance Upgrading"), units("active Ready (v7.14.3)"),
	}}
	ready := func(s cluster.Status) error {
		leader, ok := s.Leader("ci")
		if !ok || leader.Workload != cluster.Active {
			return fmt.Errorf("the leader is not ready: %s", leader.Message)
		}
		return nil
	}

	mark, _ := c.Status(ctx)
	// Here a scenario changes something.
	held, err := cluster.Wait{For: "the upgrade", Until: ready, Since: mark, Every: time.Millisecond}.On(ctx, c)
	fmt.Println(held, err)
	// Output: ci/0*: active "Ready (v7.14.3)", agent idle, machine   <nil>
}

// What is missing is an error that comes without done: it is said when time runs out.
func ExamplePoll() {
	err := cluster.Poll(context.Background(), "three builds", time.Millisecond, 10*time.Millisecond, func(context.Context) (bool, error) {
		return false, errors.New("2 of 3 have ended")
	})
	fmt.Println(errors.Is(err, cluster.ErrTimeout), strings.HasSuffix(err.Error(), ": 2 of 3 have ended"))
	// Output: true true
}
