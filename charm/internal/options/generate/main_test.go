package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

const module = "../../../.."

func TestFilesAreOfTheTable(t *testing.T) {
	for name, content := range files {
		is, err := os.ReadFile(filepath.Join(module, name))
		require.NoError(t, err)
		want, err := content(string(is))
		require.NoError(t, err)
		require.Equal(t, want, string(is), "%s is not of the table: run make options", name)
	}
}

// What Juju reads is what the table means.
func TestConfigYAML(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(module, "charm", "config.yaml"))
	require.NoError(t, err)
	var config struct {
		Options map[string]struct {
			Type        string
			Default     any
			Description string
		}
	}
	require.NoError(t, yaml.Unmarshal(data, &config))
	require.Len(t, config.Options, len(options.Table()))
	for _, o := range options.Table() {
		read := config.Options[o.Name]
		require.Equal(t, o.Kind(), read.Type, o.Name)
		require.NotEmpty(t, read.Description, o.Name)
		want := o.Default
		if o.Kind() == "string" {
			want = o.DefaultText()
		}
		require.Equal(t, want, read.Default, o.Name)
	}
}

func TestReplaceTable(t *testing.T) {
	got, err := replaceTable("before\n"+begin+"old\n"+end+"after\n", []options.Option{
		{Name: "a", Default: 1, Doc: "What a is. And more."}, {Name: "b", Default: "", Doc: "What b is."},
	})
	require.NoError(t, err)
	require.Equal(t, "before\n"+begin+"| option | default | meaning |\n| --- | --- | --- |\n"+
		"| `a` | `1` | What a is |\n| `b` | empty | What b is |\n"+end+"after\n", got)
	_, err = replaceTable("no table\n", options.Table())
	require.Error(t, err)
}
