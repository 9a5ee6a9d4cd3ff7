module stoke.test/executor

go 1.24
