package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
)

// Fingerprint tells one archive of a version from another one, as far as a server
// does without sending it.
type Fingerprint struct {
	Size      int64  `json:"size"`                // 0 if the server does not tell
	Validator string `json:"validator,omitempty"` // a strong ETag, else the time of the last change
	// Ranges: the server says that it sends parts of the archive. Only Source.Fingerprint
	// asks for it.
	Ranges bool `json:"ranges,omitempty"`
}

// Fingerprint asks for the size and the validator of an archive, in one request of a
// few hundred bytes. Errors are those of Digest.
func (s Source) Fingerprint(ctx context.Context, version string) (Fingerprint, error) {
	r, err := s.request(ctx, http.MethodHead, s.ArchiveURL(version), nil)
	if err != nil {
		return Fingerprint{}, err
	}
	r.Body.Close()
	_, _, whole, err := extent(r)
	return Fingerprint{whole.size, whole.validator, r.Header.Get("Accept-Ranges") == "bytes"}, err
}

// Fingerprint is that of the archive that is downloaded.
func (d *Download) Fingerprint() Fingerprint {
	return Fingerprint{Size: d.kept.Size, Validator: d.kept.Validator}
}

// Discard removes what a download has left in dir, below root.
func Discard(root *os.Root, dir string) error {
	for _, name := range []string{journalName, partialName} {
		if err := root.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the archive: %w", err)
		}
	}
	return nil
}
