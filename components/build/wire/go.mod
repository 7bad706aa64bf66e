module luxima/build/wire

go 1.26

require github.com/google/wire v0.7.0
