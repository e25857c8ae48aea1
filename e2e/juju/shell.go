package juju

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Shell runs a script with the plain commands juju and lxc. What it has started ends with
// its context.
func (c *Cluster) Shell(ctx context.Context, script string, variables map[string]string, line func(string)) error {
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Dir(c.options.Juju)+string(os.PathListSeparator)+os.Getenv("PATH"),
		"JUJU_DATA="+c.options.JujuData, "JUJU_CONTROLLER=", "JUJU_MODEL="+c.options.Controller+":"+c.name,
		"LXD_SOCKET="+c.options.LXDSocket, "LXD_PROJECT="+c.project,
	)
	for name, value := range variables {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("cannot run a script on model %s: %w", c.name, err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot run a script on model %s: %w", c.name, err)
	}
	last := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
		line(last)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("a script on model %s: %w, after %q", c.name, err, strings.TrimSpace(last))
	}
	return nil
}
