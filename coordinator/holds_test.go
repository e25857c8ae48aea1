package coordinator

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestHoldInAProcess is no test but a process, which holds a release until its standard
// input ends.
func TestHoldInAProcess(t *testing.T) {
	root := os.Getenv("TEST_HOLD_ROOT")
	if root == "" {
		t.Skip("for other tests")
	}
	u := inside(t, open(t, root, os.Getenv("TEST_HOLD_UNIT"), ""))
	_, _, err := u.hold(t.Context(), "7.14.3")
	require.NoError(t, err)
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0) // and drops nothing
}

// holder starts a process that holds a release.
func holder(t *testing.T, root, unit string, attr *syscall.SysProcAttr) (cmd *exec.Cmd, die func()) {
	cmd = exec.Command(os.Args[0], "-test.run=^TestHoldInAProcess$")
	cmd.Env = append(os.Environ(), "TEST_HOLD_ROOT="+root, "TEST_HOLD_UNIT="+unit)
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "held\n", line)
	return cmd, func() { in.Close() }
}

// holds returns the names of holds, of which there are pins, too.
func holdsIn(t *testing.T, root string) []string {
	return slices.DeleteFunc(list(t, filepath.Join(root, pinsDir)), func(name string) bool { return !strings.Contains(name, ".") })
}

// Two calls of one unit hold a release each for itself; what a process held when
// it died is dropped by the next one.
func TestHoldsAreOfOneCall(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.3")
	v := inside(t, c)
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	dead := fmt.Sprintf("%s/%s.%d-1.X", pinsDir, fileName(c.options.Unit), gone.Process.Pid)
	others := fmt.Sprintf("%s/concourse-ci-9.%d-1.X", pinsDir, gone.Process.Pid)
	for _, name := range []string{dead, others} {
		require.NoError(t, v.root.WriteFile(name, []byte("7.14.3.1\n"), 0o644))
	}
	first, _, err := v.hold(t.Context(), "7.14.3")
	require.NoError(t, err)
	second, _, err := v.hold(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.Len(t, listing(t, filepath.Join(root, pinsDir)), 3, "two holds, and that of a unit of which nobody knows")
	first()
	pins, err := v.pins()
	require.NoError(t, err)
	require.Len(t, pins, 2)
	second()
	_, err = v.root.Stat(others)
	require.NoError(t, err)
}

// Who a hold belongs to is told by the number of a process and by when it was started:
// in a container the numbers are the same ones again and again.
func TestHoldOfAReusedPID(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.3")
	v := inside(t, c)
	living := exec.Command("sleep", "600")
	require.NoError(t, living.Start())
	t.Cleanup(func() { living.Process.Kill(); living.Wait() })
	zombie := exec.Command("true") // which nobody waits for, as in a container without an init
	require.NoError(t, zombie.Start())
	t.Cleanup(func() { zombie.Wait() })
	waitZombie(t, zombie.Process.Pid)
	start := func(pid int) string {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(data), ") ")
		return strings.Fields(rest)[19]
	}
	for name, stays := range map[string]bool{
		fmt.Sprintf("%d-%s", living.Process.Pid, start(living.Process.Pid)): true,
		fmt.Sprintf("%d-%s", living.Process.Pid, "7"):                       false,
		fmt.Sprintf("%d-", living.Process.Pid):                              false,
		fmt.Sprintf("%d-%s", zombie.Process.Pid, start(zombie.Process.Pid)): false,
		fmt.Sprintf("%d-%s", 1<<30, "7"):                                    false,
		"x-7":                                                               true, // of a program that names processes otherwise
	} {
		name = path.Join(pinsDir, "concourse-ci-0."+name+".X")
		require.NoError(t, v.root.WriteFile(name, []byte("7.14.3.1\n"), 0o644))
		drop, _, err := v.hold(t.Context(), "7.14.3")
		require.NoError(t, err)
		require.Equal(t, stays, v.exists(name), name)
		drop()
		v.root.Remove(name)
	}
}

// waitZombie waits until a process has died, which nobody has waited for.
func waitZombie(t *testing.T, pid int) {
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(data), ") ")
		return err == nil && strings.HasPrefix(rest, "Z")
	}, 20*time.Second, time.Millisecond)
}

// A hold is dropped when its process has died, also if that had another number for
// itself than for the others; and not before, by whoever it may be.
func TestHoldOfAnotherPIDNamespace(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.3")
	for name, attr := range map[string]*syscall.SysProcAttr{
		"the same": nil,
		"another":  {Cloneflags: syscall.CLONE_NEWPID},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			same, other := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
			installed(t, same, "7.14.3")
			cmd, die := holder(t, root, "concourse-ci/0", attr)
			held := holdsIn(t, root)
			require.Len(t, held, 1)
			for _, c := range []*Coordinator{same, other} {
				drop, _, err := inside(t, c).hold(t.Context(), "7.14.3")
				require.NoError(t, err)
				drop()
				require.Equal(t, held, holdsIn(t, root), "dropped while its process lives")
			}
			die()
			require.NoError(t, cmd.Wait())
			for _, c := range []*Coordinator{other, same} {
				require.Equal(t, held, holdsIn(t, root))
				drop, _, err := inside(t, c).hold(t.Context(), "7.14.3")
				require.NoError(t, err)
				drop()
			}
			require.Empty(t, holdsIn(t, root))
		})
	}
}

// Two units whose processes do not see each other leave each other's holds alone.
func TestHoldOfAUnitThatCannotBeSeen(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.3")
	drop, _, err := inside(t, c).hold(t.Context(), "7.14.3")
	require.NoError(t, err)
	defer drop()
	mine := holdsIn(t, root)
	require.Len(t, mine, 1)
	script := `mount -t proc proc /proc && exec "$0" -test.run='^TestHoldInAProcess$'`
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount", "sh", "-c", script, os.Args[0])
	cmd.Env = append(os.Environ(), "TEST_HOLD_ROOT="+root, "TEST_HOLD_UNIT=concourse-ci/1")
	out, err := cmd.CombinedOutput() // its standard input is at its end
	if err != nil {
		needs.Lack(t, "root", "cannot make a PID namespace here: %v: %s", err, out)
	}
	held := holdsIn(t, root)
	require.Len(t, held, 2, "mine was dropped")
	require.Subset(t, held, mine)
	drop2, _, err := inside(t, c).hold(t.Context(), "7.14.3")
	require.NoError(t, err)
	drop2()
	require.Equal(t, held, holdsIn(t, root), "I dropped that of the other one")
}

// A unit that is lost is forgotten by another one, with all that it had.
func TestForgetALostUnit(t *testing.T) {
	src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
	root := t.TempDir()
	c, lost := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
	installed(t, c, "7.14.1", "7.14.2", "7.14.3")
	require.NoError(t, pin(t, lost, "7.14.1"))
	_, _, err := inside(t, lost).hold(t.Context(), "7.14.1")
	require.NoError(t, err)
	_, err = lost.Probe(t.Context())
	require.NoError(t, err)
	work, err := lost.WorkerDir(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(work, "state"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(root, stagingDir, "7.14.9.1.concourse-ci-1"), 0o755))
	removed, err := c.Collect(t.Context())
	require.NoError(t, err)
	require.NotContains(t, removed, "releases/7.14.1")

	require.NoError(t, pin(t, open(t, root, "builder", src.URL), "7.14.3"))
	require.NoError(t, os.WriteFile(filepath.Join(root, probesDir, "other-2"), nil, 0o644))
	for _, name := range []string{".hidden", "No-Unit", "two-3-4.5-6.X"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, pinsDir, name), nil, 0o644))
	}
	units, err := c.Units(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"builder", "concourse-ci/1", "other/2", "two-3/4"}, units)
	require.NoError(t, os.Remove(filepath.Join(root, pinsDir, "two-3-4.5-6.X")))
	require.NoError(t, os.Remove(filepath.Join(root, pinsDir, "No-Unit")))
	require.NoError(t, c.Forget(t.Context(), "concourse-ci/1"))
	for _, name := range listing(t, root) {
		require.NotContains(t, name, "concourse-ci-1")
	}
	removed, err = c.Collect(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"releases/7.14.1", "store/7.14.1.1"}, removed)
}

// Rollback goes back through what was active, as a stack does, whatever is activated
// and collected in between.
func TestRollbackIsAStack(t *testing.T) {
	versions := []string{"7.14.0", "7.14.1", "7.14.2", "7.14.3"}
	src := newSource(t)
	for _, v := range versions {
		src.publish(v, releaseArchive(v, 10))
	}
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 0))
		c := open(t, tmpfs(t, "8m"), "concourse-ci/0", src.URL)
		var stack, did []string
		for range 40 {
			top := ""
			if len(stack) > 0 {
				top = stack[len(stack)-1]
			}
			switch r.IntN(5) {
			case 0, 1:
				v := versions[r.IntN(len(versions))]
				did = append(did, v)
				installed(t, c, v)
				if v != top {
					stack = append(stack, v)
				}
			case 2:
				did = append(did, "collect")
				_, err := c.Collect(t.Context())
				require.NoError(t, err)
			default:
				did = append(did, "back")
				a, err := c.Rollback(t.Context())
				if len(stack) < 2 {
					require.ErrorIs(t, err, ErrNotActivated, "seed %d: %v", seed, did)
					continue
				}
				next := stack[len(stack)-2]
				if errors.Is(err, ErrNotInstalled) {
					require.ErrorContains(t, err, next, "seed %d: %v", seed, did)
					_, err = c.Ensure(t.Context(), next)
					require.NoError(t, err)
					a, err = c.Rollback(t.Context())
				}
				require.NoError(t, err, "seed %d: %v", seed, did)
				require.Equal(t, next, a.Version, "seed %d: %v", seed, did)
				stack = stack[:len(stack)-1]
			}
			current, err := c.Current(t.Context())
			if len(stack) == 0 {
				require.ErrorIs(t, err, ErrNotActivated)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, stack[len(stack)-1], current.Version, "seed %d: %v", seed, did)
		}
	}
}

// Units that roll back at once go one back, or are told that they came too late; never
// forward.
func TestRollbackRace(t *testing.T) {
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
	const units = 6
	var all sync.WaitGroup
	var errs [units]error
	var got [units]Activation
	for i := range units {
		u := open(t, root, fmt.Sprintf("concourse-ci/%d", i+1), src.URL)
		all.Go(func() { got[i], errs[i] = u.Rollback(t.Context()) })
	}
	all.Wait()
	v := inside(t, c)
	h, err := v.history()
	require.NoError(t, err)
	origin := 4
	for n := 5; n <= h.last; n++ {
		a, err := v.activation(n)
		require.NoError(t, err)
		require.Equal(t, origin-1, a.Restores, "not one back")
		require.Equal(t, fmt.Sprintf("7.14.%d", a.Restores-1), a.Version)
		origin = a.Restores
	}
	for i, err := range errs {
		if err != nil {
			require.True(t, errors.Is(err, ErrOvertaken) || errors.Is(err, ErrNotActivated), err)
			continue
		}
		logged, err := v.activation(got[i].Generation)
		require.NoError(t, err)
		require.Equal(t, logged, got[i])
	}
}
