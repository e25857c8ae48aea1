// Package needs is for tests that cannot run everywhere. They skip, and say what they
// lack, unless an environment variable requires it: then they fail.
package needs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Lack ends a test for want of something, which variable may list, separated by commas.
func Lack(t testing.TB, variable, what, format string, args ...any) {
	t.Helper()
	if Required(variable, what) {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Required tells whether variable lists what a test needs.
func Required(variable, what string) bool {
	return slices.Contains(strings.Split(os.Getenv(variable), ","), what)
}

// CacheDir returns the folder that keeps what tests need once it is built: $CCBENCH_CACHE,
// else ccbench in the user's cache folder.
func CacheDir(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("CCBENCH_CACHE"); dir != "" {
		return dir
	}
	caches, err := os.UserCacheDir()
	require.NoError(t, err)
	return filepath.Join(caches, "ccbench")
}
