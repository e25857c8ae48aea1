package options

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEnvironment(t *testing.T) {
	require.Empty(t, Default().Environment(Web), "what is unset is absent")
	require.Empty(t, Default().Environment(Worker), "what is unset is absent")
	require.Empty(t, Config{}.Environment(Worker), "what is empty is unset")

	c := Default()
	c.WebPort, c.LogLevel, c.DrainTimeout = 80, "debug", time.Minute // package concourse and the charm see to them
	c.Tag, c.ContainerdDNSServer, c.ContainerdDNSProxyEnable = " gpu,, ssd ", "10.0.0.2, fd00::2", true
	c.NoProxy, c.ExtraEnv = "example.com", "CONCOURSE_ENABLE_ACROSS_STEP=true"
	require.Equal(t, []string{
		"no_proxy=example.com", "CONCOURSE_CONTAINERD_DNS_SERVER=10.0.0.2,fd00::2",
		"CONCOURSE_CONTAINERD_DNS_PROXY_ENABLE=true", "CONCOURSE_TAG=gpu,ssd", "CONCOURSE_ENABLE_ACROSS_STEP=true",
	}, strings.Split(c.Environment(Worker), "\n"))
	require.Equal(t, "no_proxy=example.com\nCONCOURSE_ENABLE_ACROSS_STEP=true", c.Environment(Web))
}

func TestKnown(t *testing.T) {
	table := []Option{{Name: "old", Variable: "OLD"}, {Name: "new", Variable: "NEW", Since: "7.10.0"}}
	for version, unknown := range map[string][]string{
		"7.6.0": {"new"}, "7.9.2": {"new"}, "7.10.0": nil, "7.14.2": nil, "8.0.0": nil, "": nil,
	} {
		variables, got := known(table, "OLD=a=b\nNEW=1\nEXTRA=", version)
		require.Equal(t, unknown, got, version)
		want := map[string]string{"OLD": "a=b", "NEW": "1", "EXTRA": ""}
		if unknown != nil {
			delete(want, "NEW")
		}
		require.Equal(t, want, variables, version)
	}
}

func TestParseExtra(t *testing.T) {
	for text, want := range map[string][]string{
		"":                          nil,
		" A=1 ":                     {"A=1"},
		"A=1,B=2":                   {"A=1", "B=2"},
		"A=1, B=2":                  {"A=1", "B=2"},
		"A=1 B=two words, C=":       {"A=1", "B=two words", "C="},
		"A=10.0.0.0/8,10.1.0.0/16":  {"A=10.0.0.0/8,10.1.0.0/16"},
		"A=1,2 B=x=y":               {"A=1,2", "B=x=y"},
		"A=--flag b=c\n\n B=2, C=3": {"A=--flag b=c", "B=2, C=3"},
	} {
		got, ok := parseExtra(text)
		require.True(t, ok, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"A", "secret A=1", "1A=1", "A=1\nB", "=1", "A-B=1"} {
		_, ok := parseExtra(text)
		require.False(t, ok, text)
	}
}

func TestSecrets(t *testing.T) {
	require.ElementsMatch(t, []string{"http://u:p@proxy:3128", "a=b"},
		Secrets("CONCOURSE_TAG=gpu\nhttp_proxy=http://u:p@proxy:3128\nno_proxy=10.0.0.0/8\nTOKEN=a=b"))
}
