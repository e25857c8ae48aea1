package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// A step is a system call by which a unit changes a file system or makes a
// change durable, other than write. The kernel (seccomp's user notification)
// stops the unit before each one, so that a test can strike there.
var stepCalls = []uint32{
	unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNCFS, unix.SYS_SYNC_FILE_RANGE,
	unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT,
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FTRUNCATE, unix.SYS_FALLOCATE, unix.SYS_PWRITE64,
}

// announceSteps makes the kernel report the steps of this process, from now on,
// to whoever has the other end of the socket at descriptor 3.
func announceSteps() error {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	result := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	filter := []unix.SockFilter{load(0)} // seccomp_data.nr
	for _, nr := range stepCalls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			result(unix.SECCOMP_RET_USER_NOTIF))
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 3, K: unix.SYS_OPENAT},
		load(32), // the flags: the low half of args[2]
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: unix.O_CREAT},
		result(unix.SECCOMP_RET_USER_NOTIF),
		result(unix.SECCOMP_RET_ALLOW))

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
		uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(listener)), nil, 0); err != nil {
		return err
	}
	return errors.Join(unix.Close(int(listener)), unix.Close(3))
}

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	nr         int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// step is one that a unit is stopped before.
type step struct {
	n    int    // from when it was asked to strike, counted from 1
	call int32  // the number of the system call
	name string // that is made or removed, in its directory; empty if none is
}

// stepper stops a unit before each of its steps.
type stepper struct {
	mu     sync.Mutex
	n      int
	hits   func(step) bool
	strike func()
	done   chan struct{}
}

// before has strike called once, before step n from now on, counted from 1.
func (s *stepper) before(n int, strike func()) {
	s.when(func(at step) bool { return at.n == n }, strike)
}

// when has strike called once, before the first step from now on that hits tells.
func (s *stepper) when(hits func(step) bool, strike func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.hits, s.strike = 0, hits, strike
}

// after tells the k-th step behind one; that one is the 0th.
func after(begins func(step) bool, k int) func(step) bool {
	behind := -1
	return func(at step) bool {
		if behind >= 0 || begins(at) {
			behind++
		}
		return behind == k
	}
}

// pathArgument is where the calls have the path that they change.
var pathArgument = map[int32]int{
	unix.SYS_OPENAT: 1, unix.SYS_MKDIRAT: 1, unix.SYS_UNLINKAT: 1,
	unix.SYS_SYMLINKAT: 2, unix.SYS_LINKAT: 3, unix.SYS_RENAMEAT: 3, unix.SYS_RENAMEAT2: 3,
}

// name reads the path of a call from the memory of the unit, which is stopped.
func (n notification) name() string {
	i, ok := pathArgument[n.nr]
	if !ok {
		return ""
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.pid))
	if err != nil {
		return ""
	}
	defer memory.Close()
	path := make([]byte, 256) // names of the volume are shorter
	got, _ := memory.ReadAt(path, int64(n.args[i]))
	path, _, _ = bytes.Cut(path[:got], []byte{0})
	return filepath.Base(string(path))
}

func (s *stepper) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// startStepped is start for a unit whose steps are watched.
func startStepped(t *testing.T, root, name, source string) (*unit, *stepper) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	theirs := os.NewFile(uintptr(pair[1]), "steps")
	defer theirs.Close()
	u := start(t, root, name, source, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "FAULTS_STEPS=1")
		cmd.ExtraFiles = []*os.File{theirs}
	})
	theirs.Close()
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	unix.Close(pair[0])
	require.NoError(t, err)
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		u.cmd.Wait()
		needs.Lack(t, "root", "the kernel does not let a process watch another one's system calls: %s", u.log)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	require.NoError(t, err)
	s := &stepper{done: make(chan struct{})}
	go s.watch(fds[0])
	t.Cleanup(func() { u.stop(); <-s.done })
	return u, s
}

func (s *stepper) watch(listener int) {
	defer close(s.done)
	defer unix.Close(listener)
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		} else if err != nil || poll[0].Revents&unix.POLLIN == 0 {
			return // the unit and all its children are gone
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // taken back by a signal
		}
		s.mu.Lock()
		s.n++
		if s.hits != nil && s.hits(step{s.n, n.nr, n.name()}) {
			s.hits = nil
			s.strike()
		}
		s.mu.Unlock()
		r := response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	}
}

// points spreads at most n moments over the steps from first to last.
func points(first, last, n int) []int {
	every := max(1, (last-first+n)/n)
	found := []int{}
	for p := first; p <= last; p += every {
		found = append(found, p)
	}
	return found
}

// shutdown makes a file system forget what it has not written, as a power cut
// does (EXT4_IOC_SHUTDOWN).
func shutdown(dir string, flags uint32) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const ioctl = 0x8004587d
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctl, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("cannot shut down %s: %w", dir, syscall.Errno(errno))
	}
	return nil
}
