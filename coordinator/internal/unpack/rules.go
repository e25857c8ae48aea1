package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestPart is what Linux file systems take as one part of a name.
const longestPart = 255

// name checks a name in the archive and returns it relative to the release, "."
// for its top.
func (x *tree) name(raw string) (string, error) {
	if why := unusable(raw, x.limits.Path); why != "" {
		return "", refuse(raw, "has a name that "+why)
	}
	for part := range strings.SplitSeq(raw, "/") {
		if part == ".." {
			return "", refuse(raw, "leaves the release")
		}
		if len(part) > longestPart {
			return "", refuse(raw, "has a name that is too long")
		}
	}
	clean := path.Clean(raw)
	if clean == x.layout.Top || clean == "." {
		return ".", nil
	}
	name, ok := strings.CutPrefix(clean, x.layout.Top+"/")
	if !ok {
		return "", refuse(raw, "is outside of "+x.layout.Top+"/")
	}
	if first, _, _ := strings.Cut(name, "/"); first == x.layout.Reserved {
		return "", refuse(raw, "has a name that publishing needs")
	}
	if strings.Count(name, "/") >= x.limits.Depth {
		return "", refuse(raw, fmt.Sprintf("lies deeper than %d levels", x.limits.Depth))
	}
	// A part of a header would keep all of it in memory, a megabyte or more.
	return strings.Clone(name), nil
}

// checkTarget refuses a symbolic link that may lead out of the release.
//
// The kernel resolves a link from the directory that the link lies in. That is a
// real directory, since no entry lies below a link. So the ".." at the start of a
// target climb real directories, and they stay in the release if they are no more
// than the directories above the link. After a name, ".." is refused: the name may
// be another link, and ".." would climb from where that one leads. Without it, the
// rest of the target goes down, or into another link that keeps the same rule.
func (x *tree) checkTarget(name string, h *tar.Header) error {
	why := unusable(h.Linkname, x.limits.Path)
	up, down := 0, false
	for part := range strings.SplitSeq(h.Linkname, "/") {
		switch {
		case part == "" || part == ".":
		case part != "..":
			down = true
		case down:
			why = `has ".." after a name`
		default:
			up++
		}
	}
	switch {
	case h.Linkname == "":
		why = "is empty"
	case up > strings.Count(name, "/"):
		why = "leaves the release"
	}
	if why != "" {
		return refuse(h.Name, fmt.Sprintf("links to %.100q, which %s", h.Linkname, why))
	}
	return nil
}

// unusable says what is wrong with a name or a target, "" if nothing is.
func unusable(text string, longest int) string {
	switch {
	case len(text) > longest:
		return "is too long"
	case path.IsAbs(text):
		return "is absolute"
	case !utf8.ValidString(text):
		// The manifest is JSON, and would name another file.
		return "is not UTF-8"
	case strings.ContainsFunc(text, unicode.IsControl):
		return "has control characters"
	}
	return ""
}

func refuse(name, why string) error {
	return fmt.Errorf("%w: entry %.100q %s", ErrNotArchive, name, why)
}

// malformed is for what gzip and tar cannot read, or what inflated has refused.
func malformed(err error) error {
	if errors.Is(err, ErrNotArchive) {
		return err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrNotArchive, err)
}
