:linker system
