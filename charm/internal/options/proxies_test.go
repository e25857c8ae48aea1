package options

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWithModel(t *testing.T) {
	for name, test := range map[string]struct{ option, model, want Proxies }{
		"none":                      {},
		"nothing to except":         {Proxies{No: "a"}, Proxies{No: "localhost"}, Proxies{}},
		"the model's":               {Proxies{}, Proxies{"http://m:1", "http://m:2", "a, b"}, Proxies{"http://m:1", "http://m:2", "a,b"}},
		"options":                   {Proxies{"http://o:1", "http://o:2", "c"}, Proxies{"http://m:1", "http://m:2", "a"}, Proxies{"http://o:1", "http://o:2", "c"}},
		"one option":                {Proxies{HTTPS: "http://o:2"}, Proxies{"http://m:1", "http://m:2", "a"}, Proxies{"http://m:1", "http://o:2", "a"}},
		"the model's, made useless": {Proxies{No: "*"}, Proxies{"http://m:1", "", "a"}, Proxies{"http://m:1", "", "*"}},
		"without a scheme":          {Proxies{HTTP: " o:1 "}, Proxies{HTTPS: "10.0.0.1:3128"}, Proxies{"http://o:1", "http://10.0.0.1:3128", ""}},
	} {
		c := Config{HTTPProxy: test.option.HTTP, HTTPSProxy: test.option.HTTPS, NoProxy: test.option.No}
		require.Equal(t, test.want, c.WithModel(test.model).Proxies(), name)
	}
}

func TestExcept(t *testing.T) {
	require.Equal(t, "10.0.0.1", Config{HTTPSProxy: "http://p"}.Except("10.0.0.1").NoProxy)
	require.Equal(t, "a,10.0.0.1", Config{HTTPProxy: "http://p", NoProxy: "a"}.Except("10.0.0.1").NoProxy)
	require.Empty(t, Config{}.Except("10.0.0.1").NoProxy)
}
