// Package product tells the coordinator what Concourse is, and operators what to do
// about its errors in terms of the charm and of LXD.
package product

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Source is the repository whose releases are installed when none is named.
const Source = "https://github.com/concourse/concourse"

// Marker is the file in the root of a volume that says: this mount is shared
// on purpose. Who attaches the volume puts it there.
const Marker = ".lxc_shared_storage"

// Concourse is published on GitHub, or on a mirror in its layout, as
// SOURCE/releases/download/vVERSION/concourse-VERSION-linux-ARCH.tgz.
var Concourse = coordinator.Product{
	Name: "Concourse",
	Archive: func(version, arch string) string {
		return "releases/download/v" + version + "/concourse-" + version + "-linux-" + arch + ".tgz"
	},
	Top:         "concourse",
	Executables: []string{"bin/concourse"},
	Link:        "bin",
}

// ParseVersion returns "7.14.3" for "7.14.3" and for "v7.14.3". Anything else is
// coordinator.ErrVersion.
func ParseVersion(text string) (string, error) { return Concourse.ParseVersion(text) }

// Newest asks a source for its highest stable version.
func Newest(ctx context.Context, client *http.Client, source string) (string, error) {
	version, err := coordinator.Newest(ctx, client, Concourse, source, "")
	return version, Explain(err)
}

// Explain appends to an error of the coordinator what an operator of the charm can do
// about it. The kinds stay as they are.
func Explain(err error) error {
	var e *coordinator.Error
	if !errors.As(err, &e) {
		return err
	}
	if what := remedies[e.Kind]; what != "" {
		return fmt.Errorf("%w: %s", err, what)
	}
	return err
}

var remedies = map[error]string{
	coordinator.ErrNotMounted:   "attach it with `lxc config device add MACHINE concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`",
	coordinator.ErrHung:         "check the file server and the network to it",
	coordinator.ErrNotFound:     "check the options version and release-url",
	coordinator.ErrUnreachable:  "check the network, the proxy and the option release-url",
	coordinator.ErrUnauthorized: "check that release-url can be read without a login",
	coordinator.ErrNotArchive:   "check the option release-url, and that no proxy answers in its place",
	coordinator.ErrNoDigest:     "put the .sha256 file beside the archive",
	coordinator.ErrDigest:       "nothing was installed; check the option release-digest, the mirror and the proxy between",
	coordinator.ErrNoSpace:      "enlarge the volume or remove what is not needed",
}
