package concourse

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The supervisor looks again and again, also where systemd does not answer.
func TestSystemdHangs(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "systemctl"), []byte("#!/bin/sh\nsleep 60\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	before := answerLimit
	answerLimit = 100 * time.Millisecond
	defer func() { answerLimit = before }()
	begin := time.Now()
	_, err := Machine{}.State(t.Context(), ServerUnit)
	require.EqualError(t, err, "systemctl has not answered for 100ms")
	require.Less(t, time.Since(begin), 10*time.Second)
}
