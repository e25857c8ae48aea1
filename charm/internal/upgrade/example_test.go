package upgrade_test

import (
	"fmt"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/upgrade"
)

// A web server and two workers go from 7.14.2 to 7.14.3. Each call of Step is
// a hook of the leader; between the calls the units do what they were told.
func Example() {
	web := upgrade.Unit{Name: "ci/0", Web: true, Running: "7.14.2", Installed: []string{"7.14.2"}}
	one := upgrade.Unit{Name: "ci/1", Running: "7.14.2", Installed: []string{"7.14.2"}}
	two := upgrade.Unit{Name: "ci/2", Running: "7.14.2", Installed: []string{"7.14.2"}}
	state := upgrade.State{Version: "7.14.2"}
	hook := func() {
		out := upgrade.Step(state, upgrade.Input{
			Request: upgrade.Request{ID: "1", Version: "7.14.3"},
			Web:     web.Running,
			Units:   []upgrade.Unit{web, one, two},
			AtOnce:  1,
		})
		state = out.State // stored for the next hook, whoever is the leader then
		fmt.Printf("%s: %s, %s, %s\n", state.Phase, out.Units["ci/0"].Action, out.Units["ci/1"].Action, out.Units["ci/2"].Action)
	}
	hook()
	for _, u := range []*upgrade.Unit{&web, &one, &two} {
		u.Installed = append(u.Installed, "7.14.3")
	}
	hook()
	web.Running = "7.14.3"
	hook()
	one.Running = "7.14.3"
	hook()
	two.Running = "7.14.3"
	hook()
	// Output:
	// fetching: keep, keep, keep
	// activating: restart, keep, keep
	// rolling: keep, land, keep
	// rolling: keep, keep, land
	// idle: keep, keep, keep
}
